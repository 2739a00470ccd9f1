"""Text tables: the final table of a run, and any frame as a GitHub table."""

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

_CAVEATS = ("bound", "randomness")  # figures of an attack that the caption shows
_LEAKY = (
    "Leaky protocol (split.negatives=legacy): no held-out item was ever a training negative, "
    "so these figures are too high; never compare them with honest ones."
)


def final_table(summary: Mapping[str, Any]) -> RenderableType:
    """Return a run's results and costs as tables for rich.

    Args:
        summary: the content of `summary.json`; values that an unfinished run lacks are omitted.

    Returns:
        A table of metrics (validation and test at the selected round, with standard errors
        over users), one of the results of an attack if there was one, and one of costs. A red line
        states a leaky protocol.
    """
    shown: list[RenderableType] = [
        Text(_title(summary), "bold"),
        _metric_table(summary),
        Text(_caption(summary), "dim"),
    ]
    if "legacy" in str(summary.get("protocol")):
        shown.append(Text(_LEAKY, "bold red"))
    if attacked := summary.get("attack"):
        shown += [_attack_table(attacked), Text(_attack_caption(attacked), "dim")]
    return Group(*shown, _cost_table(summary))


def markdown(frame: pd.DataFrame, digits: int = 3) -> str:
    """Write a frame as a GitHub table with right-aligned numbers, without the index.

    Args:
        frame: any columns; a missing value becomes an empty cell.
        digits: decimals of a float.

    Returns:
        Two header lines and one line per row, each with a newline.
    """

    def cell(value: Any) -> str:
        if pd.isna(value):
            return ""
        text = f"{value:.{digits}f}" if isinstance(value, float) else str(value)
        return text.replace("|", "\\|")

    rules = ["---:" if pd.api.types.is_numeric_dtype(kind) else "---" for kind in frame.dtypes]
    cells = [[cell(value) for value in row] for row in frame.itertuples(index=False)]
    rows = [[cell(name) for name in frame.columns], rules, *cells]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _title(summary: Mapping[str, Any]) -> str:
    names = ("model", "dataset", "strategy", "partition", "federation", "protocol")
    parts = [str(summary[name]) for name in names if summary.get(name) is not None]
    parts += [f"{group}={name}" for group, name in (summary.get("conditions") or {}).items()]
    return f"{', '.join(parts)}, seed {summary.get('seed')}"


def _caption(summary: Mapping[str, Any]) -> str:
    if summary.get("selected_round") == 0 < summary.get("num_rounds", 0):
        return (
            "at round 0: the untrained model was best on validation, so raise num_rounds or change "
            f"the learning rates; {_users(summary)}"
        )
    last = summary.get("stopped_at")
    stopped = "" if last is None else f" (stopped at {last})"
    known = pd.notna([*(summary.get("validation") or {}).values()]).any()
    chosen = "chosen on validation" if known else "the last, for nothing is held out for validation"
    if summary.get("release") == "last":
        chosen = "the last"
    return (
        f"at round {summary.get('selected_round')} of {summary.get('num_rounds')}{stopped}, "
        f"{chosen}; {_users(summary)}"
    )


def _users(summary: Mapping[str, Any]) -> str:
    return f"n = {summary.get('num_test_users')} test users, ± standard error over users"


def _metric_table(summary: Mapping[str, Any]) -> Table:
    table = Table("metric")
    table.add_column("validation", justify="right")
    table.add_column("test", justify="right")
    validation, test = summary.get("validation") or {}, summary.get("test") or {}
    errors = summary.get("test_standard_error") or {}
    for name in validation | test:
        table.add_row(
            name, _number(validation.get(name)), _number(test.get(name), errors.get(name))
        )
    return table


def _number(value: float | None, error: float | None = None) -> str:
    text = "-" if pd.isna(value) else f"{value:.4f}"
    return text if error is None else f"{text} ± {error:.4f}"


def _attack_table(figures: Mapping[str, Any]) -> Table:
    """Return the overall results of an attack, without those of single observations."""
    table = Table("attack")
    table.add_column("achieved", justify="right")
    for name, value in figures.items():
        if "/" not in name and not name.endswith("_se") and name not in _CAVEATS:
            error = figures.get(f"{name}_se")
            is_measured = isinstance(value, float)
            table.add_row(name, _number(value, error) if is_measured else str(value))
    return table


def _attack_caption(figures: Mapping[str, Any]) -> str:
    if any(name.startswith("exposure@") for name in figures):
        return (
            "exposure: share of honest users that find a target among their best items, mean over "
            "targets (attack=watch: without an attack); a lower bound: stronger attacks may do more"
        )
    bound = "lower bounds of what is leaked: a stronger attack may find more; AUC 0.5 is chance"
    return "; ".join([bound, *filter(None, [figures.get("randomness")])])


def _cost_table(summary: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    for name, value in _costs(summary):
        table.add_row(name, value)
    return table


def _costs(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if summary.get("federation") == "centralized":
        yield "sent", "nothing: one client holds all the data"
    elif sizes := summary.get("bytes"):
        down, up, total = (
            decimal(int(sizes[key])) for key in ("down_per_client", "up_per_client", "total")
        )
        yield "sent", f"{down} down and {up} up per client and round, {total} in total"
    if seconds := summary.get("seconds"):
        yield "time", ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    if speed := summary.get("clients_per_second"):
        yield "speed", f"{speed:,.0f} clients per second"
    if memory := summary.get("peak_memory_mb"):
        yield "peak memory", f"{memory:,.0f} MB"
    if lost := summary.get("lost_replies"):
        yield "lost", ", ".join(f"{count:,} {kind}" for kind, count in lost.items()) + " replies"
    yield "privacy", _guarantee(summary)


def _guarantee(summary: Mapping[str, Any]) -> str:
    """Format epsilon with its delta, because neither has a meaning without the other."""
    epsilon, delta = summary.get("epsilon"), summary.get("delta")
    if epsilon is None or not isfinite(epsilon):
        return "none (epsilon = infinity)"
    return f"epsilon = {epsilon:g}, delta = {'unknown' if delta is None else f'{delta:.2g}'}"

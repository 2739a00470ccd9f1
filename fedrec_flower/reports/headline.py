"""The leaderboard as Markdown: few columns, the best in bold, common values in the caption."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from fedrec_flower.reports.leaderboard import ACTIVITY_GAP, ATTACK, ERRORS, FIELD, metrics_of
from fedrec_flower.reports.markdown import markdown
from fedrec_flower.reports.run_frames import SEEDED_CAVEAT, is_seeded

_HEADLINE = ("ndcg@10", "hr@10", "ndcg@10_99neg", "hr@10_99neg", *ERRORS)
_ATTACK = (
    *("auc", "advantage", "precision", "recall", "exposure@10", "ndcg@10_honest"),
    *("sum/auc", "sums/auc", "release/auc", "releases/auc", "auc_of_counts"),
    *("sum/auc_anonymous", "sum/auc_anonymous_chance"),
)
_NAMES = (
    "dataset",
    "task",
    "protocol",
    "candidates",
    "strategy",
    "partition",
    "federation",
    "randomness",
)
_ORIGIN = ("num_test_users", "split_sha256", "commit", "versions")
_LEVEL = 0.05
_UNBEATEN = " ≈"  # marks rows not significantly worse than the best


def leaderboard_markdown(table: pd.DataFrame) -> str:
    """Write a leaderboard as Markdown.

    Args:
        table: from `leaderboard_table`, or from `comparison` (without p-values).

    Returns:
        A table, followed by the meaning of its marks and the values common to all rows.
    """
    shown = pd.DataFrame({"run": table["label"]})
    for name in _differing(table, _NAMES):
        shown[name] = table[name]
    shown["seeds"] = table["seeds"]
    for metric in headline(table):
        shown[metric] = _cells(table, metric)
        if f"{metric}_p" in table:
            shown[f"p ({metric})"] = _p_values(table, metric)
    if (gap := _activity_gap(table)) is not None:
        shown["activity gap"] = gap.map("{:+.4f}".format).where(gap.notna(), "")
    if f"{ATTACK}exposed" in table:
        shown["attack on"] = table[f"{ATTACK}exposed"]
    for name in _ATTACK:
        if f"{ATTACK}{name}" in table:
            shown[f"attack: {name}"] = _mean_and_deviation(table, f"{ATTACK}{name}")
    for name, cells in _costs(table):
        shown[name] = cells
    return markdown(shown) + "".join(f"\n{line}\n" for line in _caption(table))


def headline(table: pd.DataFrame) -> list[str]:
    """Return the headline metrics that at least one row has."""
    known = metrics_of(table)
    return [name for name in _HEADLINE if name in known and table[name].notna().any()]


def _activity_gap(table: pd.DataFrame) -> "pd.Series[float] | None":
    """Return the metric gap between active and inactive users; None if it was not measured."""
    column = f"{next(iter(headline(table)), '')}_{ACTIVITY_GAP}"
    return table[column] if column in table and table[column].notna().any() else None


def _cells(table: pd.DataFrame, metric: str) -> "pd.Series[str]":
    """Format mean ± standard deviation over seeds; the best in bold, equals of the best marked."""
    cells_text = _mean_and_deviation(table, metric)
    is_best = _is_best(table, metric) & _has_rivals(table, metric)
    cells = cells_text.where(~is_best, "**" + cells_text + "**")
    if f"{metric}_p" in table:
        cells += np.where(table[f"{metric}_p"] >= _LEVEL, _UNBEATEN, "")
    return cells


def _is_best(table: pd.DataFrame, metric: str) -> "pd.Series[bool]":
    merit = -table[metric] if metric in ERRORS else table[metric]
    return merit == merit.groupby([table[name] for name in FIELD]).transform("max")


def _has_rivals(table: pd.DataFrame, metric: str) -> "pd.Series[bool]":
    return table.groupby(FIELD)[metric].transform("count") > 1


def _mean_and_deviation(table: pd.DataFrame, name: str) -> "pd.Series[str]":
    """Mean ± standard deviation over seeds."""
    cells = [
        "" if pd.isna(mean) else f"{mean:.4f}" + ("" if pd.isna(sd) else f" ± {sd:.4f}")
        for mean, sd in zip(table[name], table[f"{name}_sd"], strict=True)
    ]
    return pd.Series(cells, index=table.index)


def _p_values(table: pd.DataFrame, metric: str) -> "pd.Series[str]":
    """How likely a row's distance from the best is chance; runs that share no seed are no pair."""
    values = table[f"{metric}_p"]
    measured = table[metric].notna() & _has_rivals(table, metric)
    untested = values.isna() & measured & ~_is_best(table, metric)
    return values.map(_p_told).where(~untested, "not tested")


def _p_told(value: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"  # noqa: PLR2004  # the last digit shown


def _costs(table: pd.DataFrame) -> Iterator[tuple[str, "pd.Series[str]"]]:
    columns = (
        ("rounds", "num_rounds", 1.0),
        ("clients a round", "clients_per_round", 1.0),
        ("kB down", "bytes_down_per_client_and_round", 1e3),
        ("kB up", "bytes_up_per_client_and_round", 1e3),
        ("MB in all", "bytes_total", 1e6),
        ("seconds", "seconds_total", 1.0),
        ("clients / s", "clients_per_second", 1.0),
        ("memory MB", "peak_memory_mb", 1.0),
    )
    for name, column, unit in columns:
        if column in table:
            yield name, table[column].map(lambda value, unit=unit: _format_count(value / unit))
    deltas = table["delta"] if "delta" in table else table["epsilon"] * np.nan
    cells_text = [_guarantee(*pair) for pair in zip(table["epsilon"], deltas, strict=True)]
    guarded = np.isfinite(table["epsilon"]).any()
    yield "epsilon (delta)" if guarded else "epsilon", pd.Series(cells_text, table.index)


def _guarantee(epsilon: float, delta: float) -> str:
    """Format epsilon with its delta, because neither has a meaning without the other."""
    if np.isinf(epsilon):
        return "∞"
    return f"{epsilon:g} ({'unknown' if np.isnan(delta) else f'{delta:.2g}'})"


def _format_count(value: float) -> str:
    if pd.isna(value):
        return ""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"  # noqa: PLR2004  # two digits


def _caption(table: pd.DataFrame) -> Iterator[str]:
    errors = {
        metric: table[f"{metric}_se"].median()
        for metric in headline(table)
        if f"{metric}_se" in table
    }
    about = ", ".join(f"{error:.3f} ({metric})" for metric, error in errors.items())
    yield (
        "±: one standard deviation over seeds (of ratings on published folds: over folds)"
        + (f"; the standard error over users is about {about}" if about else "")
        + ". kB are per client and round, MB in all of all clients and rounds; costs are means "
        "over seeds."
    )
    if any(f"{metric}_p" in table for metric in errors):
        yield (
            f"Bold: the best.{_UNBEATEN}: not shown to be worse than the best (p ≥ {_LEVEL}). p: "
            "McNemar's exact test for hr@10 (seed by seed; what most seeds show), a paired "
            "bootstrap over users for ndcg@10 (means over seeds); corrected by Holm over the rows."
        )
    if _activity_gap(table) is not None:
        yield (
            f"Activity gap: {headline(table)[0]} of the most active quarter of the users, less "
            "that of the least active."
        )
    if any(str(name).startswith(ATTACK) for name in table):
        yield "Figures of attacks are lower bounds: a stronger attack may achieve more."
    guarded = np.isfinite(table["epsilon"]).any()
    if is_seeded(table) and (guarded or f"{ATTACK}exposed" in table or f"{ATTACK}auc" in table):
        yield f"{SEEDED_CAVEAT}."
    common = [name for name in (*_NAMES, *_ORIGIN) if name in table]
    same = [name for name in common if name not in _differing(table, common)]
    cells_text = [f"{name} {table[name].iloc[0]}" for name in same if table[name].iloc[0]]
    yield f"All rows: {'; '.join(cells_text)}. `comparison.csv` holds every metric and origin."


def _differing(table: pd.DataFrame, names: Iterable[str]) -> list[str]:
    return [name for name in names if name in table and len(set(table[name].astype(str))) > 1]

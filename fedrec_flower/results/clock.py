"""What waiting costs: how soon, on a simulated clock, runs come near the one that waits for all."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from fedrec_flower.frames import once
from fedrec_flower.results.configuration import Settings
from fedrec_flower.results.goal import SHARE, first_at, way_or_how_far
from fedrec_flower.results.leaderboard import ERRORS, FIELD, completed_once
from fedrec_flower.results.load import load_runs, load_settings, load_summaries
from fedrec_flower.results.tables import markdown

_CLOCK = "simulated_seconds"  # as strategies report it


def timed(path: str | Path, metric: str) -> pd.DataFrame:
    """When, on its simulated clock, each run stood where on validation.

    Args:
        path: a folder with run folders at any depth; completed ones with such a clock count.
        metric: a validation metric.

    Returns:
        The rows of `load_runs` for that metric with the column seconds (simulated, since the start;
        0 of the untrained model); empty if no run has a clock.

    Raises:
        FedrecError: if there is no run that can be read.
    """
    runs = load_runs(path)
    runs = once(runs[runs["status"] == "completed"])
    clock = runs[runs["metric"] == _CLOCK].set_index(["run", "round"])["value"].rename("seconds")
    evaluated = runs[(runs["phase"] == "validation") & (runs["metric"] == metric)]
    shown = evaluated[evaluated["run"].isin(clock.index.unique("run"))]
    shown = shown.join(clock, on=["run", "round"])
    return shown.assign(seconds=shown["seconds"].where(shown["round"] > 0, 0.0))


def clock(path: str | Path, metric: str) -> pd.DataFrame:
    """When runs first came near the best that a server reaches which waits for every reply.

    Args:
        path: as in `timed`.
        metric: the validation metric that is to be reached, more of it being better.

    Returns:
        One row per experiment, those that wait for all first: label, dataset, model, waits_for_all
        (whether the buffer holds all clients at work), seeds (how many), share (`SHARE`), goal
        (that share of the best value, mean over seeds, of those that wait for all; of any where
        there is none), best (validation value, mean over seeds), test (value at the round that
        validation selected, mean over seeds), reached (how many seeds did), seconds (simulated,
        until the first evaluated round at the goal; mean over seeds, missing unless every seed
        got there) and seconds_run (of the whole run).

        No row for runs without a clock, nor for a metric that is an error.

    Raises:
        FedrecError: if there is no run that can be read.
    """
    curves = {
        str(run): own.set_index("seconds")["value"]
        for run, own in timed(path, metric).groupby("run")
    }
    if not curves or metric in ERRORS:
        return pd.DataFrame()
    runs, settings = completed_once(load_summaries(path)).set_index("run"), load_settings(path)
    runs = runs.loc[list(curves)]
    waiting = [_waits_for_all(run, settings) for _, run in runs.iterrows()]
    runs = runs.assign(curve=pd.Series(curves, dtype=object), waits_for_all=waiting)
    rows = [row for _, rivals in runs.groupby([*FIELD, "model"]) for row in _rows(rivals, metric)]
    order = ["model", "waits_for_all", "label"]
    table = pd.DataFrame(rows).sort_values(order, ascending=[True, False, True], kind="stable")
    return table.reset_index(drop=True)


def clock_told(table: pd.DataFrame, metric: str) -> str:
    """Write the table of `clock` as Markdown, and say below it what the goal is."""
    shown = pd.DataFrame(
        {
            "run": table["label"],
            "waits for": table["waits_for_all"].map({True: "all", False: "some"}),
            "seeds": table["seeds"],
            f"best validation {metric}": table["best"].map("{:.4f}".format),
            f"test {metric}": table["test"].map("{:.4f}".format),
            "simulated seconds to the goal": list(way_or_how_far(table, "seconds", "{:,.1f}")),
        }
    )
    goals = table.drop_duplicates("model")
    told = "; ".join(f"{row.model} {row.goal:.4f}" for row in goals.itertuples())
    whose = "the runs that wait for all" if goals["waits_for_all"].all() else "any run"
    return markdown(shown) + (
        f"\nGoal, {SHARE:.0%} of the best validation {metric} of {whose}: {told}. Reached at the "
        "first evaluated round that is there. Test at the round that validation selected; means "
        "over seeds. In brackets: how long a run took that never got there.\n"
    )


def _waits_for_all(run: "pd.Series[Any]", settings: Mapping[str, Settings]) -> bool:
    """Whether the server moves only once all clients at work have replied."""
    size = settings[run["configuration"]].get("strategy.buffer_size")
    asked = run["clients_per_round"]
    return isinstance(size, int) and size >= (run["num_clients"] if pd.isna(asked) else asked)


def _rows(rivals: pd.DataFrame, metric: str) -> Iterator[dict[str, Any]]:
    """Rows of one model on the same data."""
    best = rivals["curve"].map(max)
    patient = rivals["waits_for_all"] if rivals["waits_for_all"].any() else ~rivals["waits_for_all"]
    goal = SHARE * best[patient].groupby(rivals["configuration"]).mean().max()
    for _, repeated in rivals.groupby("configuration"):
        first = repeated.iloc[0]
        seconds = repeated["curve"].map(lambda curve: first_at(curve, goal))
        yield {
            **{name: first[name] for name in ("label", "dataset", "model", "waits_for_all")},
            "seeds": len(repeated),
            "share": SHARE,
            "goal": goal,
            "best": best[repeated.index].mean(),
            "test": repeated[f"test.{metric}"].mean(),
            "reached": int(seconds.notna().sum()),
            "seconds": seconds.mean(skipna=False),
            "seconds_run": repeated["curve"].map(lambda curve: curve.index[-1]).mean(),
        }

"""Helpers for frames of runs, shared by tables and figures."""

from typing import Any

import pandas as pd

_ENGINES = {"simulation", "in_process", "deployment"}  # results are equal up to rounding
_DISTINCT = ("configuration", "label", "seed", "split_sha256")  # split_sha256 distinguishes folds


SEEDED_CAVEAT = (
    "randomness=seeded: client draws and the noise of privacy follow from the seed, which the "
    "server knows; epsilons, and figures of attacks that do not use it, hold only for an observer "
    "without it"
)
"""Caveat of every figure about leakage from seeded runs."""


def is_seeded(frame: pd.DataFrame) -> bool:
    """Return whether clients of any run drew from the seed. Runs without that column did.

    Args:
        frame: one or more rows per run, with an optional column `randomness`.
    """
    return "randomness" not in frame or bool((frame["randomness"] != "private").any())


def is_engine(federation: Any) -> bool:
    """Return whether the name is that of a transport of a federation; a missing name is."""
    return bool(pd.isna(federation)) or federation in _ENGINES


def drop_repeated_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep one run of each experiment, seed and split, because a repetition adds no evidence.

    Args:
        frame: any number of rows per run; a frame without the column `run` holds one run.

    Returns:
        All rows of the last completed run of each kind, or of the last run if none is completed.
    """
    if "run" not in frame:
        return frame
    runs = frame.drop_duplicates("run")
    if "status" in runs:
        runs = runs.sort_values("status", key=lambda status: status == "completed", kind="stable")
    counted = runs.drop_duplicates([name for name in _DISTINCT if name in runs], keep="last")
    return frame[frame["run"].isin(counted["run"])]


def count_repeats(frame: pd.DataFrame) -> tuple["pd.Series[int]", str]:
    """Count the runs of each series, and name the difference between them.

    Args:
        frame: has a column `seed` and no repeated runs; without a `label` it is one series.

    Returns:
        The number of runs by label, and their name: "seeds"; "folds" if the seed is always the
        same; "runs" if both differ.
    """
    labelled = frame if "label" in frame else frame.assign(label="")
    keys = [name for name in ("label", "seed", "split_sha256") if name in labelled]
    runs = labelled.drop_duplicates(keys).groupby("label")["seed"]
    counts, seeds = runs.size(), runs.nunique()
    if (counts == seeds).all():
        return counts, "seeds"
    return counts, "folds" if (seeds == 1).all() else "runs"

"""What the frames of runs say, read alike by tables and by figures."""

from typing import Any

import pandas as pd

_ENGINES = {"simulation", "in_process", "deployment"}  # the same results on each, up to rounding
_APART = ("configuration", "label", "seed", "split_sha256")  # the last tells folds apart


SEEDED_CAVEAT = (
    "randomness=seeded: client draws and the noise of privacy follow from the seed, which the "
    "server knows; epsilons, and figures of attacks that do not use it, hold only for an observer "
    "without it"
)
"""What goes with every figure about what an observer learns of clients, where runs are seeded."""


def is_seeded(frame: pd.DataFrame) -> bool:
    """Whether clients of any run drew by the seed, as in all runs that do not say how they did.

    Args:
        frame: with a row or several per run, and perhaps a column `randomness`.
    """
    return "randomness" not in frame or bool((frame["randomness"] != "private").any())


def is_engine(federation: Any) -> bool:
    """Whether a run is one of a federation, by the name of what carried it; unnamed ones are."""
    return bool(pd.isna(federation)) or federation in _ENGINES


def drop_repeated_runs(frame: pd.DataFrame) -> pd.DataFrame:
    """Leave out what was run again: a run repeated is no further evidence.

    Runs repeat each other if they differ neither in their configuration nor in seed or split.

    Args:
        frame: any number of rows per run; a frame without the column `run` holds one run.

    Returns:
        All rows of one run of each kind: of the completed ones the last, else the last.
    """
    if "run" not in frame:
        return frame
    runs = frame.drop_duplicates("run")
    if "status" in runs:
        runs = runs.sort_values("status", key=lambda told: told == "completed", kind="stable")
    counted = runs.drop_duplicates([name for name in _APART if name in runs], keep="last")
    return frame[frame["run"].isin(counted["run"])]


def count_repeats(frame: pd.DataFrame) -> tuple["pd.Series[int]", str]:
    """How often each series was run, and in what its runs differ.

    Args:
        frame: with a column `seed`, repeated runs left out; without a `label` it is one series.

    Returns:
        The number of runs by label, and what to call them: "seeds"; "folds", where the seed is
        always the same; "runs", where both differ.
    """
    labelled = frame if "label" in frame else frame.assign(label="")
    apart = [name for name in ("label", "seed", "split_sha256") if name in labelled]
    runs = labelled.drop_duplicates(apart).groupby("label")["seed"]
    counts, seeds = runs.size(), runs.nunique()
    if (counts == seeds).all():
        return counts, "seeds"
    return counts, "folds" if (seeds == 1).all() else "runs"

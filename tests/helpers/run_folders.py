"""Run folders without runs: what a run would leave, written by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from fedrec_flower.experiment.run_folder import RunFolder

Ranks = Mapping[str, Sequence[int]]  # user id -> ranks of that user's held-out items


def summary(**changes: Any) -> dict[str, Any]:
    """The summary of a completed run."""
    return {
        "status": "completed",
        "dataset": "ml-100k",
        "model": "ncf",
        "strategy": "fedavg",
        "partition": "user",
        "protocol": "leave_one_out, honest",
        "federation": "in_process",
        "task": "ranking",
        "seed": 1,
        "num_rounds": 2,
        "clients_per_round": None,
        "num_clients": 4,
        "selected_round": 2,
        "validation": {"hr@10": 0.3},
        "test": {"hr@10": 0.25},
        "test_standard_error": {"hr@10": 0.125},
        "num_test_users": 4,
        "seconds": {"train": 1.5, "total": 2.0},
        "clients_per_second": 1234.5,
        "bytes": {"down_per_client": 2000, "up_per_client": 1000, "total": 3_000_000},
        "peak_memory_mb": 321.0,
        "split_sha256": "abc",
        "commit": "def",
        "versions": {"python": "3.11", "ray": None},
        "overrides": [],
        "epsilon": None,
    } | changes


def write_run(folder: Path, ranks: Ranks | None = None, **changes: Any) -> RunFolder:
    """A run folder with rounds, users and a summary; config.yaml only if `write_config` adds it.

    Args:
        folder: where to.
        ranks: of held-out items by user; default one each for users a and b.
        changes: of the summary.
    """
    run = RunFolder.create(folder)
    for round_, value in ((1, 0.1), (2, 0.3)):
        run.add_round(round_, "train", {"loss": 1 - value}, 4)
        run.add_round(round_, "validation", {"hr@10": value}, 4)
    held_out = {"a": [1], "b": [7]} if ranks is None else ranks
    rows = [(user, 3, rank) for user, of_user in held_out.items() for rank in of_user]
    run.write_table("per_user", pd.DataFrame(rows, columns=["user_id", "num_train", "rank_full"]))
    run.write_summary(summary(**changes))
    return run


def write_config(run: RunFolder, **settings: Any) -> None:
    """The config.yaml of a run, settings by dotted name with __ for the dot."""
    whole: dict[str, Any] = {"defaults": ["_self_"], "hydra": {"job": 1}, "output_dir": "here"}
    for name, value in settings.items():
        group, _, leaf = name.partition("__")
        if leaf:
            whole.setdefault(group, {})[leaf] = value
        else:
            whole[group] = value
    run.write_configuration(yaml.safe_dump(whole))

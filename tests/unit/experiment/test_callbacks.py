"""Callbacks of a run: the configured list, and the table of rounds."""

from pathlib import Path

import pandas as pd
import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.interactions import Part
from fedrec_flower.experiment.callbacks import (
    CheckpointWriter,
    ProgressBar,
    RoundsTable,
    open_callbacks,
)
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.results import Evaluated, TrainedRound


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def available(folder: RunFolder) -> dict[str, object]:
    """Arguments that the run passes to constructors."""
    return {"folder": folder, "summary": None, "num_rounds": 3, "select_by": "ndcg@10"}


def test_default_callbacks_are_table_progress_and_checkpoint(folder: RunFolder) -> None:
    config, _ = compose([])
    with open_callbacks(config["callbacks"], **available(folder)) as callbacks:
        assert [type(callback) for callback in callbacks] == [
            RoundsTable,
            ProgressBar,
            CheckpointWriter,
        ]


def test_callback_set_to_null_is_left_out(folder: RunFolder) -> None:
    config, _ = compose(["callbacks.progress=null"])
    with open_callbacks(config["callbacks"], **available(folder)) as callbacks:
        assert ProgressBar not in [type(callback) for callback in callbacks]


def test_class_that_is_not_a_callback_is_rejected(folder: RunFolder) -> None:
    node = {"_target_": "fedrec_flower.experiment.callbacks.RunFolder"}
    with (
        pytest.raises(ConfigError, match=r"callbacks\.mine\._target_.*class with Callback"),
        open_callbacks({"mine": node}, **available(folder)),
    ):
        pass


def test_rounds_table_writes_metrics_and_failures(folder: RunFolder) -> None:
    table = RoundsTable(folder)
    table.after_round(TrainedRound(1, 0.5, 4, {"late": 2}, {"delta": 0.1}))
    metrics = {Part.VALIDATION: {"hr@5": 0.2}, Part.TEST: {"hr@5": 0.3}}
    table.after_evaluation(Evaluated(1, "", {}, metrics, {}, num_clients=7, num_users=7))
    rows = pd.read_csv(folder.path / "rounds.csv").to_numpy().tolist()
    assert rows == [
        [1, "train", "loss", 0.5, 4],
        [1, "train", "delta", 0.1, 4],
        [1, "train", "lost/late", 2.0, 4],
        [1, "validation", "hr@5", 0.2, 7],
        [1, "test", "hr@5", 0.3, 7],
    ]

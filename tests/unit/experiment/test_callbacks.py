"""Callbacks of a run: the configured list, the table of rounds and early stopping."""

from pathlib import Path

import pandas as pd
import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.interactions import Part
from fedrec_flower.experiment.callbacks import (
    CheckpointWriter,
    EarlyStopping,
    ProgressBar,
    RoundsTable,
    open_callbacks,
)
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run_folder import RunFolder

NAN = float("nan")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run")


def available(folder: RunFolder) -> dict[str, object]:
    """Arguments that the run passes to constructors."""
    numbers = {"num_rounds": 3, "select_by": "ndcg@10", "higher_is_better": True}
    return {"folder": folder, "summary": None, **numbers}


def test_default_callbacks_are_table_progress_checkpoint_and_early_stopping(
    folder: RunFolder,
) -> None:
    config, _ = compose([])
    with open_callbacks(config["callbacks"], **available(folder)) as callbacks:
        assert [type(callback) for callback in callbacks] == [
            RoundsTable,
            ProgressBar,
            CheckpointWriter,
            EarlyStopping,
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
    table.after_round(1, 0.5, 4, {"late": 2}, {"delta": 0.1})
    table.after_evaluation(1, {Part.VALIDATION: {"hr@5": 0.2}, Part.TEST: {"hr@5": 0.3}}, 7)
    rows = pd.read_csv(folder.path / "rounds.csv").to_numpy().tolist()
    assert rows == [
        [1, "train", "loss", 0.5, 4],
        [1, "train", "delta", 0.1, 4],
        [1, "train", "lost/late", 2.0, 4],
        [1, "validation", "hr@5", 0.2, 7],
        [1, "test", "hr@5", 0.3, 7],
    ]


@pytest.mark.parametrize(
    ("values", "higher_is_better", "stops"),
    [
        ([0.1, 0.2, 0.3], True, False),
        ([0.3, 0.2, 0.1], True, True),
        ([0.3, 0.2, 0.1], False, False),
        ([0.3, 0.3, 0.3], True, True),  # an equal value is no improvement
        ([0.3, NAN, 0.2], True, True),
        ([NAN, 0.1, 0.0], True, False),  # any value is better than none
        ([NAN, NAN, NAN], True, True),
    ],
)
def test_early_stopping_counts_evaluations_without_improvement(
    folder: RunFolder, values: list[float], higher_is_better: bool, stops: bool
) -> None:
    early_stopping = EarlyStopping(2, folder, "m", higher_is_better=higher_is_better)
    for round_, value in enumerate(values):
        early_stopping.after_evaluation(round_, {Part.VALIDATION: {"m": value}, Part.TEST: {}}, 1)
    assert early_stopping.should_stop() is stops


def test_early_stopping_of_a_resumed_run_reads_its_earlier_evaluations(folder: RunFolder) -> None:
    for round_, value in enumerate([0.3, 0.2, 0.1]):
        folder.add_round(round_, "validation", {"m": value, "other": 1.0}, 1)
    early_stopping = EarlyStopping(2, folder, "m", higher_is_better=True)
    early_stopping.on_start(1)
    assert not early_stopping.should_stop()
    again = EarlyStopping(2, folder, "m", higher_is_better=True)
    again.on_start(2)
    assert again.should_stop()


def test_early_stopping_without_patience_never_stops(folder: RunFolder) -> None:
    early_stopping = EarlyStopping(None, folder, "m", higher_is_better=True)
    for round_ in range(9):
        early_stopping.after_evaluation(round_, {Part.VALIDATION: {"m": 0.1}, Part.TEST: {}}, 1)
    assert not early_stopping.should_stop()

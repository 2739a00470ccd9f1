"""A run that stops early leaves everything, and stays stopped."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedrec_flower.core.errors import ConfigError
from tests.helpers.interrupted_runs import (
    SAME,
    go_on,
    interrupted,
    kinds,
    require_same,
    uninterrupted,
)

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

HASTY = ("num_rounds=60", "evaluation.every=1", "patience=3", "training.learning_rate=3.0")


def test_run_that_stops_early_writes_all_artifacts(make_run: "MakeRun") -> None:
    stopped = make_run(*HASTY)
    summary = stopped.summary
    scores = stopped.values("validation", "ndcg@10")
    best = max(scores, key=lambda round_: (scores[round_], -round_))
    assert summary["status"] == "completed"
    assert summary["selected_round"] == best
    assert summary["stopped_at"] == max(scores) == best + 3
    assert (stopped.folder / "model.safetensors").exists()
    assert len(stopped.table("per_user")) == summary["num_test_users"]
    assert len(list((stopped.folder / "figures").glob("*.png"))) == 4
    whole = make_run(*HASTY, f"num_rounds={summary['stopped_at']}")
    for name in SAME:
        assert (whole.folder / name).read_bytes() == (stopped.folder / name).read_bytes()
    assert whole.summary["stopped_at"] is None


@pytest.mark.slow
def test_resumed_run_that_stopped_early_does_not_train(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = [*smoke, *HASTY, "checkpoint_every=1000", "federation.num_nodes=1"]
    stopped = uninterrupted(make_run, tuple(words))
    messages = 2 + 2 * json.loads((stopped / "summary.json").read_text())["stopped_at"]
    interrupted(words, tmp_path / "run", messages)
    assert kinds(go_on(words, tmp_path / "run")) == ["query", "evaluate"]
    require_same(stopped, tmp_path / "run")


def test_patience_without_validation_data_is_an_error(make_run: "MakeRun") -> None:
    with pytest.raises(ConfigError, match="patience=2 needs validation data, but this"):
        make_run("patience=2", "split=random", "split.validation_fraction=0.0")

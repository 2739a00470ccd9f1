"""The table of models measures whole rounds and evaluations of each model."""

import pytest

from fedrec_flower.benchmark import models
from fedrec_flower.benchmark.models import measure, models_table
from fedrec_flower.core.random import generator
from fedrec_flower.experiment.composition import compose
from tests.unit.benchmark.test_engines import SMALL


def test_measure_reports_a_round_and_an_evaluation() -> None:
    row = measure("model=mf finetune_epochs=1", rounds=2, dataset=SMALL)
    assert row["model"] == "mf finetune_epochs=1"
    assert row["round_cpu_seconds"] > 0
    assert row["evaluation_cpu_seconds"] > 0
    assert row["first_round_seconds"] > 0
    assert row["peak_memory_mb"] > 50


def test_every_model_of_the_table_can_be_composed() -> None:
    for model in models.MODELS:
        config, _ = compose(model.split())
        assert config["model"]["name"] == model.split()[0].removeprefix("model=")
    assert len(set(models.MODELS)) == len(models.MODELS)


def test_table_has_a_row_for_every_model(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = generator(1, "benchmark")
    monkeypatch.setattr(models, "in_new_process", lambda *_: {"round_cpu_seconds": rng.random()})
    assert len(models_table(1, SMALL)) == len(models.MODELS)

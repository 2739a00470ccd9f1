"""Leak tests of the protocol: without information from other users, models rank at chance.

A leak raises `local_only` far above chance: if held-out items are never drawn as negatives, a model
with personal item parameters learns which items have no negative gradient.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedrec_flower.data.interactions import Part

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

CHANCE = pytest.approx(0.10, abs=0.03)  # of HR@10 against 99 negatives
MANY_USERS = (
    "dataset.num_users=500",
    "dataset.num_items=300",
    "dataset.num_interactions=12500",
    "evaluation.num_negatives=99",
    "evaluation.every=100",
)
# Rates at which a client memorises its own data.
BY_HEART = (
    "strategy=local_only",
    "training.learning_rate=5.0",
    "training.dense_learning_rate=0.5",
    "training.batch_size=null",
    "num_rounds=5",
)

# FedRAP's sum of two item tables memorises more slowly.
LONGER = {"fedrap": ("training.learning_rate=20.0", "num_rounds=10")}


def hit_rate(federate: "Federate", *overrides: str) -> float:
    """HR@10 against 99 negatives after the last round, mean of validation and test.

    The mean of 1000 draws: three standard errors are 0.028.
    """
    ran = federate(*MANY_USERS, *overrides)
    metrics = ran.watcher.metrics[ran.setup.plan.num_rounds]
    return sum(metrics[part]["hr@10_99neg"] for part in (Part.VALIDATION, Part.TEST)) / 2


@pytest.mark.parametrize("model", ["mf", "ncf", "pfedrec", "fedrap"])
def test_local_only_training_ranks_held_out_items_at_chance(
    federate: "Federate", model: str
) -> None:
    assert hit_rate(federate, f"model={model}", *BY_HEART, *LONGER.get(model, ())) == CHANCE


@pytest.mark.parametrize("model", ["mf", "fedrap"])
def test_legacy_negatives_exceed_chance(federate: "Federate", model: str) -> None:
    leak = ("split.negatives=legacy", *LONGER.get(model, ()))
    assert hit_rate(federate, f"model={model}", *BY_HEART, *leak) > 0.3


@pytest.mark.parametrize("model", ["mf", "ncf", "ials", "random"])
def test_an_untrained_model_ranks_at_chance(federate: "Federate", model: str) -> None:
    assert hit_rate(federate, f"model={model}", "num_rounds=0") == CHANCE


def test_constant_scores_give_zero_metrics(federate: "Federate") -> None:
    ran = federate(*MANY_USERS, "model=mf", "model.init_std=0.0", "num_rounds=0")
    for metrics in ran.watcher.metrics[0].values():
        assert len(metrics) == 2 * 2
        assert set(metrics.values()) == {0.0}


def test_a_federation_exceeds_chance(federate: "Federate") -> None:
    learning = ("strategy=fedadam", "strategy.server_learning_rate=0.03", "num_rounds=30")
    rates = ("training.learning_rate=5.0", "training.batch_size=null")
    assert hit_rate(federate, "model=mf", *learning, *rates) > 0.2


def real_run(tmp_path: Path, *overrides: str) -> dict[str, Any]:
    """A run on MovieLens-100K with default settings, without Ray."""
    from fedrec_flower.experiment.composition import compose
    from fedrec_flower.experiment.run import run
    from fedrec_flower.experiment.run_folder import RunFolder

    config, _ = compose(["dataset=ml-100k", "federation=in_process", *overrides])
    return run(config, RunFolder.create(tmp_path / "run"))


REAL_GATES: dict[str, Sequence[str]] = {
    "local_only": (
        "strategy=local_only",
        "num_rounds=5",
        "training.batch_size=null",
        "model.embedding_dim=16",  # every client stores all item vectors on disk
    ),
    "untrained": ("num_rounds=0",),
}


@pytest.mark.slow
@pytest.mark.parametrize("gate", REAL_GATES)
@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_movielens_local_or_untrained_models_rank_at_chance(
    tmp_path: Path, gate: str, model: str
) -> None:
    summary = real_run(tmp_path, *REAL_GATES[gate], f"model={model}", "evaluation.every=5")
    assert summary["num_test_users"] == 943
    assert 0.07 <= summary["test"]["hr@10_99neg"] <= 0.13
    assert 0.07 <= summary["validation"]["hr@10_99neg"] <= 0.13


@pytest.mark.slow
def test_movielens_constant_scores_give_zero_metrics(tmp_path: Path) -> None:
    summary = real_run(tmp_path, "model=mf", "model.init_std=0.0", "num_rounds=0")
    for part in ("validation", "test"):
        metrics = summary[part]
        assert {metrics[name] for name in metrics if name.startswith(("hr", "ndcg"))} == {0.0}


@pytest.mark.slow
def test_movielens_legacy_negatives_exceed_chance(tmp_path: Path) -> None:
    leak = ("split.negatives=legacy", "evaluation.every=5")
    summary = real_run(tmp_path, "model=mf", *REAL_GATES["local_only"], *leak)
    assert summary["test"]["hr@10_99neg"] > 0.3

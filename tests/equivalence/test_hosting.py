"""Hosting changes results by rounding only."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

PARTIAL = ("clients_per_round=10", "evaluation.num_clients=12")
SETTINGS = {
    "mf": ("model=mf",),
    "ncf": ("model=ncf",),
    "textbook": ("strategy.aggregation=all_clients",),
    "silos": ("partition=silo_random", "partition.num_clients=6"),
    "rating": ("task=rating", "strategy.server_learning_rate=1.0"),
    "legacy": ("split.negatives=legacy",),
    "adam": ("training.optimizer=adam", "training.learning_rate=0.02"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_hosting_does_not_change_the_parameters(federate: "Federate", setting: str) -> None:
    silos = setting == "silos"
    cohort = ("clients_per_round=4",) if silos else PARTIAL
    overrides = (*SETTINGS[setting], *cohort)
    every = 6 if silos else 24
    one, *others = (
        federate(*overrides, f"federation.num_nodes={nodes}") for nodes in (1, 2, every)
    )
    table = one.metric_table()
    for other in others:
        for key, value in other.metric_table().items():
            assert value == pytest.approx(table[key], abs=5e-7)
        for round_, loss in other.watcher.losses.items():
            assert loss == pytest.approx(one.watcher.losses[round_], rel=1e-5)
        for ours, theirs in ((one.shared, other.shared), (one.personal, other.personal)):
            for name, tensor in ours.items():
                assert_allclose(theirs[name], tensor, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("setting", SETTINGS)
def test_vectorized_equals_sequential_training(federate: "Federate", setting: str) -> None:
    cohort = () if setting == "silos" else PARTIAL
    one, other = (
        federate(*SETTINGS[setting], *cohort, f"training.engine={engine}")
        for engine in ("sequential", "vectorized")
    )
    table = one.metric_table()
    for key, value in other.metric_table().items():
        assert value == pytest.approx(table[key], abs=1e-4)
    for ours, theirs in ((one.shared, other.shared), (one.personal, other.personal)):
        for name, tensor in ours.items():
            assert_allclose(theirs[name], tensor, rtol=1e-3, atol=1e-5)


def test_comparison_detects_a_different_seed(federate: "Federate") -> None:
    one, other = federate("seed=1"), federate("seed=2")
    name = "item_embedding.weight"
    assert not np.allclose(one.shared[name], other.shared[name], rtol=1e-3, atol=1e-5)

"""Spherical clusters of planted populations, and the clustered strategy in a federation."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.base import VERSIONS
from fedrec_flower.strategies.clustered import (
    Clustered,
    assign_to_cluster,
    spherical_clusters,
    update_cosines,
)

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

NUM_ITEMS, DIM = 60, 3


def planted(rng: np.random.Generator, population: NDArray[np.int64], noise: float) -> Updates:
    """Updates on half of the items in the direction of the client's population, with noise."""
    directions = rng.normal(size=(population.max() + 1, NUM_ITEMS, DIM))
    offsets, rows, changes = [0], [], []
    for kind in population:
        touched = np.sort(rng.choice(NUM_ITEMS, NUM_ITEMS // 2, replace=False))
        changes.append(directions[kind, touched] + noise * rng.normal(size=(len(touched), DIM)))
        rows.append(touched)
        offsets.append(offsets[-1] + len(touched))
    clients, weights = np.arange(len(population)) * 3, np.ones(len(population))
    table = np.concatenate(changes).astype(np.float32)
    return Updates(clients, weights, np.array(offsets), np.concatenate(rows), {"table": table})


def cosines_of(updates: Updates) -> NDArray[np.float64]:
    return update_cosines(updates, {"table": (NUM_ITEMS, DIM)}, ["table"])


def same_partition(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether two labellings are equal up to the names of the clusters."""
    return bool(((one[:, None] == one) == (other[:, None] == other)).all())


@given(seed=st.integers(0, 2**32))
def test_update_cosines_equal_those_of_whole_updates(seed: int) -> None:
    updates = planted(np.random.default_rng(seed), np.array([0, 1, 0, 1]), 0.5)
    whole = np.zeros((4, NUM_ITEMS, DIM))
    whole[updates.owners, updates.rows] = updates.tensors["table"]
    unit = whole.reshape(4, -1) / np.linalg.norm(whole.reshape(4, -1), axis=1, keepdims=True)
    assert_allclose(cosines_of(updates), unit @ unit.T, atol=1e-6)


@given(seed=st.integers(0, 2**32), num_clusters=st.integers(1, 3))
def test_spherical_clusters_recover_planted_populations(seed: int, num_clusters: int) -> None:
    rng = np.random.default_rng(seed)
    population = rng.permutation(np.arange(40) % num_clusters)
    found = spherical_clusters(cosines_of(planted(rng, population, 0.1)), num_clusters, rng)
    assert same_partition(found, population)
    assert (np.diff(np.bincount(found)) <= 0).all()  # the largest comes first


@given(seed=st.integers(0, 2**32))
def test_new_clients_are_assigned_to_their_population(seed: int) -> None:
    rng = np.random.default_rng(seed)
    population = rng.permutation(np.arange(40) % 2)
    cosines = cosines_of(planted(rng, population, 0.1))
    joined = assign_to_cluster(cosines[30:, :30], population[:30])
    assert_array_equal(joined, population[30:])


def test_clusters_are_equal_for_the_same_seed() -> None:
    cosines = cosines_of(planted(np.random.default_rng(1), np.zeros(30, np.int64), 1.0))
    one, again = (spherical_clusters(cosines, 4, np.random.default_rng(2)) for _ in range(2))
    assert_array_equal(one, again)


# --- in a federation --------------------------------------------------------------------------

PLAIN = ("strategy.server_optimizer=fedavg", "strategy.server_learning_rate=1.0")
# Users of two tastes with few common items.
TWO_TASTES = (
    "dataset.num_factors=2",
    "dataset.factor_concentration=0.01",
    "dataset.popularity_exponent=0.0",
)


def clustered(federate: "Federate", *overrides: str) -> "Federated":
    return federate("model=mf", "strategy=clustered", *PLAIN, *overrides)


def clusters_of(ran: "Federated") -> NDArray[np.int64]:
    assert isinstance(ran.strategy, Clustered)
    return ran.strategy._cluster


@pytest.mark.parametrize(
    "choice",
    [
        ("strategy.num_clusters=1", "strategy.cluster_at=1"),
        ("strategy.num_clusters=3", "strategy.cluster_at=4"),
    ],
    ids=["one cluster", "clusters after the last round"],
)
@pytest.mark.parametrize("aggregation", ["all_clients", "touched_clients"])
def test_clustered_without_clusters_equals_fedavg(
    federate: "Federate", choice: tuple[str, ...], aggregation: str
) -> None:
    how = ("clients_per_round=10", f"strategy.aggregation={aggregation}")
    ran = clustered(federate, *choice, *how)
    plain = federate("model=mf", *how)
    assert_array_equal(ran.shared[VERSIONS], np.zeros(24))
    for name, value in plain.shared.items():
        assert_allclose(ran.shared[name][0], value, atol=1e-6)
    for key, metric in plain.metric_table().items():
        assert ran.metric_table()[key] == pytest.approx(metric, abs=1e-6)


def test_users_of_two_tastes_get_two_clusters_and_two_models(federate: "Federate") -> None:
    ran = clustered(federate, *TWO_TASTES, "strategy.cluster_at=1")
    data = ran.setup.data
    second = data.items["genres"].str.contains("genre-1").to_numpy()
    share = np.array([second[data.client(client).train.item].mean() for client in range(24)])
    taste = (share > 1 / 2).astype(np.int64)
    assert 6 < taste.sum() < 18
    assert same_partition(clusters_of(ran), taste)
    assert_array_equal(ran.shared[VERSIONS], clusters_of(ran))
    one, other = ran.shared["item_bias.weight"]
    assert not np.allclose(one, other, atol=1e-3)


def test_cluster_is_trained_by_its_members_only(federate: "Federate") -> None:
    ran = clustered(federate, *TWO_TASTES, "strategy.cluster_at=1", "num_rounds=2")
    before = clustered(federate, *TWO_TASTES, "strategy.cluster_at=1", "num_rounds=1")
    for group in (0, 1):
        members = np.flatnonzero(clusters_of(ran) == group)
        items = np.concatenate([ran.setup.data.client(int(c)).train.item for c in members])
        liked = np.bincount(items, minlength=60) > 0
        rose = ran.shared["item_bias.weight"][group] > before.shared["item_bias.weight"][group]
        assert liked[rose[:, 0]].mean() > 0.8


def test_late_clients_join_a_cluster_and_absent_ones_receive_the_largest(
    federate: "Federate",
) -> None:
    ran = clustered(federate, "clients_per_round=6", "strategy.cluster_at=1")
    has_trained = ran.outcome.rounds_participated > 0
    assert 6 < has_trained.sum() < 24
    assert_array_equal(clusters_of(ran) >= 0, has_trained)
    assert (ran.shared[VERSIONS][~has_trained] == 0).all()


def test_reference_updates_are_stored_until_all_clients_have_a_cluster(
    federate: "Federate",
) -> None:
    some, everyone = (
        clustered(federate, f"clients_per_round={count}", "strategy.cluster_at=1").strategy.state()
        for count in (6, 24)
    )
    assert "reference/clients" in some
    assert not any(name.startswith("reference/") for name in everyone)


def test_restored_state_equals_the_saved_state(federate: "Federate") -> None:
    choice = ("strategy.cluster_at=2", "strategy.server_optimizer=fedadam")
    some = "clients_per_round=6"  # otherwise all clients have a cluster and no updates are stored
    ran = federate("model=mf", "strategy=clustered", some, *choice)
    fresh = build(
        "strategy",
        {
            "_target_": "fedrec_flower.strategies.Clustered",
            "aggregation": "touched_clients",
            "num_clusters": 2,
            "cluster_at": 2,
            "server_optimizer": "fedadam",
            "server_learning_rate": 0.1,
            "beta1": 0.9,
            "beta2": 0.99,
            "tau": 0.001,
        },
        info=ran.setup.info(),
    )
    state = ran.strategy.state()
    fresh.restore(state)
    again = fresh.state()
    assert set(again) == set(state)
    assert {"cluster", "reference/clients", "optimizer/1/num_steps"} < set(state)
    for name, value in state.items():
        assert_array_equal(again[name], value)


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("strategy.num_clusters=0", r"num_clusters=0 is impossible: choose between 1 and 10"),
        ("strategy.num_clusters=11", r"num_clusters=11 is impossible: choose between 1 and 10"),
        ("strategy.cluster_at=0", r"strategy\.cluster_at=0 is impossible: give 1 or more"),
    ],
)
def test_value_out_of_range_is_an_error(
    federate: "Federate", override: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        clustered(federate, "clients_per_round=10", override)

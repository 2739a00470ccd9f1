"""Similarity, neighbour shares and means of the user graph, and the strategy in a federation."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies import user_graph as graph
from fedrec_flower.strategies.base import VERSIONS, Aggregation, RoundInfo
from fedrec_flower.strategies.user_graph import (
    UserGraph,
    cosine_similarity,
    mean_over_neighbours,
    neighbour_shares,
)

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

NUM_CLIENTS, NUM_ITEMS = 5, 11
TABLES = ["table"]
EVERY_AGGREGATION = pytest.mark.parametrize("aggregation", ["all_clients", "touched_clients"])
Table = NDArray[np.float32]
Losses = NDArray[np.float64]


@dataclass(frozen=True)
class GraphInput:
    """The parameters that five clients received, and the updates of some of them."""

    given: Tensors
    updates: Updates

    def change(self, name: str) -> Table:
        """The members' updates as dense arrays, (num_members, ...)."""
        if name not in TABLES:
            return self.updates.tensors[name]
        whole = np.zeros((len(self.updates.clients), *self.given[name].shape[1:]), np.float32)
        whole[self.updates.owners, self.updates.rows] = self.updates.tensors[name]
        return whole

    @property
    def touched(self) -> NDArray[np.bool_]:
        """Whether a member touched a row, (num_members, num_items)."""
        flags = np.zeros((len(self.updates.clients), NUM_ITEMS), np.bool_)
        flags[self.updates.owners, self.updates.rows] = True
        return flags


@st.composite
def graph_inputs(draw: st.DrawFn) -> GraphInput:
    """Draw a cohort of five clients; each member touches some of eleven rows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    members = np.array(sorted(draw(st.sets(st.integers(0, NUM_CLIENTS - 1), min_size=1))))
    rows = [np.flatnonzero(rng.random(NUM_ITEMS) < 0.5) for _ in members]
    offsets = np.cumsum([0, *map(len, rows)])

    def drawn(*shape: int) -> Table:
        return rng.normal(size=shape).astype(np.float32)

    given_ = {"table": drawn(NUM_CLIENTS, NUM_ITEMS, 3), "dense": drawn(NUM_CLIENTS, 2, 2)}
    changed = {"table": drawn(offsets[-1], 3), "dense": drawn(len(members), 2, 2)}
    weights = rng.integers(1, 50, len(members)).astype(np.float64)
    return GraphInput(given_, Updates(members, weights, offsets, np.concatenate(rows), changed))


def trained_parameters(graph_input: GraphInput) -> NDArray[np.float64]:
    """Every client's parameters after training, flat."""
    parts = []
    for name, value in graph_input.given.items():
        after = value.astype(np.float64)
        after[graph_input.updates.clients] += graph_input.change(name)
        parts.append(after.reshape(NUM_CLIENTS, -1))
    return np.concatenate(parts, axis=1)


def dense_mean(
    graph_input: GraphInput, shares: Table, name: str, aggregation: Aggregation
) -> NDArray[np.float64]:
    """The mean over neighbours, client by client and row by row."""
    before, change = graph_input.given[name][graph_input.updates.clients], graph_input.change(name)
    result = np.zeros(graph_input.given[name].shape)
    for client, own in enumerate(shares.astype(np.float64)):
        result[client] = np.average(before, axis=0, weights=own)
        by_row = aggregation == "touched_clients" and name in TABLES
        if not by_row:
            result[client] += np.average(change, axis=0, weights=own)
            continue
        for row in range(NUM_ITEMS):
            weights = own * graph_input.touched[:, row]
            if weights.any():
                result[client, row] += np.average(change[:, row], axis=0, weights=weights)
    return result


@pytest.mark.parametrize("centred", [False, True])
@given(graph_input=graph_inputs(), floats_at_once=st.sampled_from([1, 40, 1 << 20]))
def test_similarity_is_the_cosine_of_all_parameters_of_two_clients(
    graph_input: GraphInput, floats_at_once: int, *, centred: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_FLOATS_AT_ONCE", floats_at_once)
        found = cosine_similarity(graph_input.given, graph_input.updates, TABLES, centred=centred)
    flat = trained_parameters(graph_input) - trained_parameters(graph_input).mean(axis=0) * centred
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    assert_allclose(found, unit @ unit[graph_input.updates.clients].T, atol=1e-5)


@EVERY_AGGREGATION
@given(
    graph_input=graph_inputs(),
    floats_at_once=st.sampled_from([1, 40, 1 << 20]),
    count=st.integers(1, 5),
)
def test_mean_over_neighbours_equals_a_dense_computation(
    graph_input: GraphInput, floats_at_once: int, count: int, aggregation: Aggregation
) -> None:
    similarity = cosine_similarity(graph_input.given, graph_input.updates, TABLES, centred=True)
    shares = neighbour_shares(similarity, graph_input.updates.weights, count, 1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_FLOATS_AT_ONCE", floats_at_once)
        views = mean_over_neighbours(
            graph_input.given, graph_input.updates, TABLES, shares, aggregation
        )
    for name, view in views.items():
        assert_allclose(view, dense_mean(graph_input, shares, name, aggregation), atol=1e-5)


@given(graph_input=graph_inputs(), count=st.none() | st.integers(1, 5), threshold=st.floats(-1, 1))
def test_shares_belong_to_the_nearest_in_proportion_to_their_examples(
    graph_input: GraphInput, count: int | None, threshold: float
) -> None:
    similarity = cosine_similarity(graph_input.given, graph_input.updates, TABLES, centred=True)
    weights = graph_input.updates.weights
    shares = neighbour_shares(similarity, weights, count, threshold)
    assert_allclose(shares.sum(axis=1), np.ones(NUM_CLIENTS), rtol=1e-6)
    for own, alike in zip(shares, similarity, strict=True):
        chosen = own > 0
        assert chosen[alike.argmax()]
        assert alike[chosen].min() >= alike[~chosen].max(initial=-1.0) - 1e-6
        assert_allclose(own[chosen], (weights / weights[chosen].sum())[chosen], rtol=1e-6)
        if count is not None:
            assert chosen.sum() == min(count, len(weights))


@given(
    kind=st.lists(st.integers(0, 2), min_size=5, max_size=5).map(np.array),
    seed=st.integers(0, 2**32),
    threshold=st.floats(-1, 1),
)
def test_clients_with_equal_parameters_are_neighbours(
    kind: NDArray[np.int64], seed: int, threshold: float
) -> None:
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(3, NUM_ITEMS, 3)).astype(np.float32)
    everyone, nothing = np.arange(5), np.zeros(0, np.int64)
    unchanged = {"table": np.zeros((0, 3), np.float32)}
    none = Updates(everyone, np.ones(5), np.zeros(6, np.int64), nothing, unchanged)
    similarity = cosine_similarity({"table": kinds[kind]}, none, TABLES, centred=True)
    is_neighbour = neighbour_shares(similarity, none.weights, None, threshold) > 0
    assert is_neighbour[kind[:, None] == kind].all()


def test_least_similar_clients_are_no_neighbours() -> None:
    # The authors' code uses the distance as similarity: its neighbours would be the others.
    similarity = np.array([[1.0, 0.9, -0.5], [0.9, 1.0, -0.5], [-0.5, -0.5, 1.0]])
    shares = neighbour_shares(similarity, np.ones(3), None, 0.0)
    expected = np.array([[1 / 2, 1 / 2, 0], [1 / 2, 1 / 2, 0], [0, 0, 1]])
    assert_allclose(shares, expected)


def test_client_with_zero_parameters_has_similarity_zero() -> None:
    updates = Updates(
        np.array([0]),
        np.ones(1),
        np.array([0, 0]),
        np.zeros(0, np.int64),
        {"table": np.zeros((0, 2), np.float32)},
    )
    zeros = {"table": np.zeros((2, 4, 2), np.float32)}
    for centred in (False, True):
        found = cosine_similarity(zeros, updates, TABLES, centred=centred)
        assert_array_equal(found, [[0.0], [0.0]])


# --- in a federation --------------------------------------------------------------------------

WAYS = ("shared", "own")  # of scoring
GRAPH = ("model=gpfedrec", "training.learning_rate=20", "clients_per_round=10")


@EVERY_AGGREGATION
def test_user_graph_with_all_neighbours_equals_fedavg(
    federate: "Federate", aggregation: str
) -> None:
    aggregation = f"strategy.aggregation={aggregation}"
    ran = federate(*GRAPH, "strategy=user_graph", "strategy.num_neighbours=24", aggregation)
    plain = federate(*GRAPH, "strategy=fedavg", aggregation)
    assert set(ran.shared) == {*plain.shared, VERSIONS}
    for name, value in plain.shared.items():
        assert_allclose(ran.shared[name], np.broadcast_to(value, (24, *value.shape)), atol=1e-5)
    for name, value in plain.personal.items():
        assert_allclose(ran.personal[name], value, atol=1e-5)
    for key, metric in plain.metric_table().items():
        assert ran.metric_table()[key] == pytest.approx(metric, abs=1e-5)


def test_each_client_receives_the_mean_over_its_neighbours_every_round(
    federate: "Federate", monkeypatch: pytest.MonkeyPatch
) -> None:
    received = []

    def recorded(
        self: UserGraph, views: Tensors, updates: Updates, losses: Losses, round_: RoundInfo
    ) -> Tensors:
        received.append(updates)
        return move(self, views, updates, losses, round_)

    move = UserGraph.apply_updates
    monkeypatch.setattr(UserGraph, "apply_updates", recorded)
    words = ("strategy=user_graph", "strategy.threshold=0", "federation.num_nodes=3")
    ran = federate(*GRAPH, *words)
    views = ran.strategy.initialize(ran.setup.initial(ran.strategy))
    assert len(received) == 3
    for updates in received:
        tables = ran.setup.model.item_rows
        similarity = cosine_similarity(views, updates, tables, centred=True)
        shares = neighbour_shares(similarity, updates.weights, None, 0.0)
        assert 0 < (shares > 0).mean() < 1
        [name] = updates.tensors
        change = np.zeros((len(updates.clients), *views[name].shape[1:]), np.float32)
        change[updates.owners, updates.rows] = updates.tensors[name]
        touched = np.zeros(change.shape[:2])
        touched[updates.owners, updates.rows] = 1.0
        before = np.einsum("uv,vid->uid", shares, views[name][updates.clients])
        weight = np.maximum(shares @ touched, 1e-30)[..., None]
        views = {name: before + np.einsum("uv,vid->uid", shares, change) / weight}
    assert_allclose(ran.shared[name], views[name], atol=1e-5)
    assert not np.allclose(ran.shared[name], ran.shared[name][:1], atol=1e-3)  # the versions differ


def test_client_scores_with_its_received_or_with_its_trained_parameters(
    federate: "Federate",
) -> None:
    shared, own = (federate(*GRAPH, "strategy=user_graph", f"model.score_with={w}") for w in WAYS)
    name = "item_embedding.weight"
    assert_array_equal(shared.shared[name], own.shared[name])
    assert shared.metric_table() != own.metric_table()
    assert set(own.personal) - set(shared.personal) == {name}


def test_proximal_factor_keeps_clients_near_the_received_parameters(federate: "Federate") -> None:
    name = "item_embedding.weight"
    free, held_back = (
        federate(*GRAPH, "strategy=user_graph", "num_rounds=1", f"strategy.pull={pull}")
        for pull in (0.0, 0.9)
    )
    start = free.strategy.initialize(free.setup.initial(free.strategy))[name]
    far, near = (np.abs(ran.shared[name] - start).mean() for ran in (free, held_back))
    assert 0 < near < 0.9 * far


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("strategy.num_neighbours=0", r"num_neighbours=0 is impossible: give 1 or more"),
        ("strategy.threshold=2.0", r"threshold=2\.0 is impossible: give 1 or less"),
        ("strategy.pull=2.0", r"pull=2\.0 is impossible: give 1 or less"),
        ("strategy.memory_budget_mb=0", r"24 clients takes the server about 0 MB.*lower model\."),
    ],
)
def test_value_out_of_range_is_an_error(
    federate: "Federate", override: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        federate(*GRAPH, "strategy=user_graph", override)

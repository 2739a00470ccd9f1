"""LightGCN on ego graphs: its closed form, the paper's matrices, and the case without layers."""

from math import sqrt
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.lightgcn import LightGCN
from fedrec_flower.models.mf import MF

NUM_ITEMS, DIM = 6, 3
Task = Literal["ranking", "rating"]
# Three items, one, none.
HISTORY = Columns(np.array([0, 3, 4, 4]), np.array([4, 1, 0, 4], np.int32), None)
EVERYBODY = torch.arange(3)


def lightgcn(
    num_layers: int, task: Task = "ranking", dim: int = DIM, dropout: float = 0.0
) -> LightGCN:
    return LightGCN(3, NUM_ITEMS, (1.0, 5.0), task, dim, 0.1, num_layers, dropout)


def drawn(num_layers: int, task: Task = "ranking", history: Columns = HISTORY) -> LightGCN:
    """A model with random parameters and a history."""
    model, rng = lightgcn(num_layers, task), np.random.default_rng(5)
    model.load({n: rng.normal(size=v.shape).astype(np.float32) for n, v in values(model).items()})
    model.set_history(history)
    return model


def values(model: LightGCN) -> Tensors:
    return {name: value.detach().numpy() for name, value in model.named_parameters()}


def propagated(
    user: NDArray[np.float64], items: NDArray[np.float64], num_layers: int
) -> NDArray[np.float64]:
    """The mean of layers (1 + n, d) of a star by eq. 3, 4 and 8: the user first, then n items."""
    adjacency = np.zeros((1 + len(items), 1 + len(items)))
    adjacency[0, 1:] = adjacency[1:, 0] = 1
    root = np.diag(adjacency.sum(axis=1) ** -0.5)
    layers = [np.vstack([user, items])]
    for _ in range(num_layers):
        layers.append(root @ adjacency @ root @ layers[-1])
    mean: NDArray[np.float64] = np.mean(layers, axis=0)
    return mean


def test_lightgcn_with_one_layer_matches_a_manual_computation() -> None:
    model = lightgcn(num_layers=1, dim=2)
    item = np.array([[1, 0], [0, 2], [3, 1], [5, 5], [1, -1], [2, 0]], np.float32)
    model.load(
        {
            "user_embedding.weight": np.array([[4, -2], [1, 0], [0, 0]], np.float32),
            "item_embedding.weight": item,
            "item_bias.weight": np.array([[0], [0], [0.5], [0], [0], [0]], np.float32),
        }
    )
    model.set_history(HISTORY)  # the first user had 4, 1 and 0, the second only 4
    neighbours = (1 + 0 + 1) / sqrt(3), (-1 + 2 + 0) / sqrt(3)
    mean = (4 + neighbours[0]) / 2, (-2 + neighbours[1]) / 2
    scores = model.score_all(EVERYBODY).detach().numpy()
    assert scores[0, 2] == pytest.approx(mean[0] * 3 + mean[1] * 1 + 0.5, rel=1e-6)
    assert scores[1, 2] == pytest.approx((1 + 1) / 2 * 3 + (0 - 1) / 2 * 1 + 0.5, rel=1e-6)


@pytest.mark.parametrize("num_layers", range(6))
@given(items=st.lists(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=NUM_ITEMS, unique=True))
def test_lightgcn_equals_the_papers_propagation_on_the_ego_graph(
    num_layers: int, items: list[int]
) -> None:
    had = Columns(np.array([0, len(items)]), np.array(items, np.int32), None)
    model = drawn(num_layers, history=had)
    v = values(model)
    table = v["item_embedding.weight"].astype(np.float64)
    middle = propagated(v["user_embedding.weight"][0], table[items], num_layers)[0]
    expected = table @ middle + v["item_bias.weight"][:, 0]
    assert_allclose(model.score_all(torch.tensor([0])).detach()[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("task", ["ranking", "rating"])
def test_lightgcn_without_layers_equals_mf(task: Task) -> None:
    model = drawn(num_layers=0, task=task)
    mf = MF(3, NUM_ITEMS, (1.0, 5.0), task, DIM, 0.1)
    biases = {"user_bias.weight": np.zeros((3, 1)), "global_bias": np.array([model.score_offset])}
    rest = {n: b.astype(np.float32) for n, b in biases.items() if task == "rating"}
    mf.load(values(model) | rest)
    expected = mf.score_all(EVERYBODY).detach()
    assert_allclose(model.score_all(EVERYBODY).detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("num_layers", [1, 3])
def test_odd_layers_on_a_star_equal_the_first(num_layers: int) -> None:
    one = drawn(num_layers=1).score_all(EVERYBODY).detach()
    assert_array_equal(drawn(num_layers).score_all(EVERYBODY).detach(), one)
    assert (drawn(num_layers + 1).score_all(EVERYBODY).detach() != one).any()


def test_a_users_graph_does_not_include_other_users_of_the_client() -> None:
    """The first two users both had item 4, which passes no information between them."""
    before, other = drawn(num_layers=2), drawn(num_layers=2)
    other.user_embedding.weight.data[1] += 1
    scores = [model.score_all(EVERYBODY).detach() for model in (before, other)]
    assert_array_equal(scores[0][[0, 2]], scores[1][[0, 2]])
    assert (scores[0][1] != scores[1][1]).all()


def test_lightgcn_shares_item_vectors_and_keeps_user_vectors() -> None:
    model = lightgcn(num_layers=2)
    assert model.personal_names() == ["user_embedding.weight"]
    assert model.shared_names() == ["item_embedding.weight", "item_bias.weight"]


@pytest.mark.parametrize(
    ("num_layers", "dropout", "message"),
    [(-1, 0.0, r"num_layers must not be negative: -1"), (1, 1.0, r"input_dropout .*: 1\.0")],
)
def test_lightgcn_rejects_impossible_settings(
    num_layers: int, dropout: float, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        lightgcn(num_layers, dropout=dropout)

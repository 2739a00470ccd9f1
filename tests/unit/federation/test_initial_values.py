"""Laws of initial values: drawn at once or alone, they are the same, and follow their law."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.core.random import Secret, Seed, draw, streams
from fedrec_flower.core.types import Float32Array
from fedrec_flower.federation.client.initial_values import InitialValues
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.layers import (
    Init,
    Initialized,
    Normal,
    PerItem,
    Personal,
    Uniform,
    UserEmbedding,
)

SEEDS: list[Seed] = [3, Secret(bytes(range(32)))]


def ascending(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """A custom distribution, which depends on the whole shape."""
    return np.sort(rng.random(shape), axis=0).astype(np.float32)


class Several(Recommender):
    """One parameter of each kind."""

    def __init__(self, user_init: Init) -> None:
        super().__init__()
        self.user_embedding = UserEmbedding(1, 3, init=user_init)
        self.user_bias = UserEmbedding(1, 1, init=Normal(1.0))
        self.head = Personal(nn.Linear(2, 4))
        self.own = Personal(Initialized(nn.Linear(3, 2), ascending))
        self.items = PerItem(Initialized(nn.Parameter(Tensor(5, 2)), Normal(0.1)))

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return users * items


def drawn_by(user_init: Init, seed: Seed) -> InitialValues:
    model = Several(user_init)
    names = model.personal_names()
    return InitialValues(model, {n: tuple(model.get_parameter(n).shape) for n in names}, seed)


@pytest.mark.parametrize("user_init", [Normal(0.5), ascending], ids=["normal", "custom"])
@pytest.mark.parametrize("seed", SEEDS, ids=["seed", "secret"])
@given(
    clients=st.lists(st.integers(0, 50), unique=True, max_size=6),
    sizes=st.lists(st.integers(1, 3), min_size=51, max_size=51),
)
def test_clients_drawn_together_have_the_values_of_clients_drawn_alone(
    user_init: Init, seed: Seed, clients: list[int], sizes: list[int]
) -> None:
    values = drawn_by(user_init, seed)
    codes, num_users = np.array(clients, np.int64), np.array(sizes, np.int64)
    together = values.of(codes, num_users[codes])
    alone = [values.of(codes[[place]], num_users[codes[[place]]]) for place in range(len(codes))]
    for name, value in together.items():
        empty = np.zeros((0, *value.shape[1:]), np.float32)
        assert value.dtype == np.float32
        assert_array_equal(value, np.concatenate([empty, *(own[name] for own in alone)]))
    assert together["user_embedding.weight"].shape == (int(num_users[codes].sum()), 3)
    assert together["head.weight"].shape == (len(clients), 4, 2)


def test_parameters_clients_and_users_have_different_values() -> None:
    found = drawn_by(Normal(1.0), 3).of(np.arange(20), np.full(20, 2))
    everything = np.concatenate([found[f"user_{kind}.weight"] for kind in ("embedding",)])
    assert len(np.unique(everything)) == everything.size
    assert not np.intersect1d(found["user_bias.weight"], everything).size


def bits(count: int) -> NDArray[Any]:
    return draw(streams(1, "cohort", 0, np.array([4])), np.arange(count))


def test_values_from_bits_follow_the_declared_distribution() -> None:
    from scipy.stats import kstest

    normal = Normal(2.0).from_bits(bits(100_000))
    assert kstest(normal / 2, "norm").pvalue > 1e-3
    assert_allclose([normal.mean(), normal.std()], [0, 2], atol=0.03)
    assert np.abs(np.corrcoef(normal[:-1], normal[1:])[0, 1]) < 0.015
    uniform = Uniform(0.3).from_bits(bits(100_000))
    assert kstest(uniform / 0.6 + 0.5, "uniform").pvalue > 1e-3
    extremes = np.array([0, 2**64 - 1], np.uint64)
    assert np.isfinite(Normal(1.0).from_bits(extremes)).all()
    assert (np.abs(Uniform(0.3).from_bits(extremes)) <= np.float32(0.3)).all()

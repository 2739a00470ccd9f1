"""Ownership and initial values follow from the layers of a model, not from their names."""

import inspect
from copy import deepcopy

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.layers import (
    Constant,
    Frozen,
    Initialized,
    ItemEmbedding,
    LocallyAdapted,
    Normal,
    PerItem,
    Personal,
    PerUser,
    Uniform,
    UserEmbedding,
    XavierUniform,
    Zeros,
)


class Model(Recommender):
    """A model with a layer of every kind; its scores do not matter."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.renamed = UserEmbedding(num_users, 2, init=Normal(0.5))
        self.item = ItemEmbedding(num_items, 2, init=Zeros())
        self.own_items = Personal(ItemEmbedding(num_items, 2, init=Zeros()))
        self.head = Personal(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)))
        self.fixed = Frozen(nn.Linear(2, 2))
        self.adapted = LocallyAdapted(ItemEmbedding(num_items, 1, init=Constant(2.0)))
        self.dense = nn.Linear(2, 2)
        self.user_offset = PerUser(nn.Parameter(torch.zeros(num_users)))
        self.register_buffer("features", PerItem(torch.zeros(num_items, 4)))

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        scores: Tensor = (self.renamed(users) * self.item(items)).sum(-1)
        return scores


class Child(Model):
    """A subclass without a constructor."""


LINEAR = {"weight", "bias"}


@pytest.mark.parametrize("kind", [Model, Child])
def test_ownership_follows_the_types_of_layers(kind: type[Model]) -> None:
    model = kind(3, 4)
    assert model.user_rows == {"renamed.weight", "user_offset"}
    assert model.item_rows == {
        "item.weight",
        "own_items.weight",
        "adapted.weight",
        "features",
    }
    head = {f"head.{place}.{name}" for place in (0, 2) for name in LINEAR}
    assert model.personal == {"own_items.weight", *head}
    assert model.frozen == {f"fixed.{name}" for name in LINEAR}
    assert model.locally_adapted == {"adapted.weight"}
    shared = {"item.weight", "adapted.weight", *model.frozen, "dense.weight", "dense.bias"}
    assert set(model.shared_names()) == shared
    assert set(model.personal_names()) == set(dict(model.named_parameters())) - shared


def test_markers_return_their_argument_and_add_no_level_to_names() -> None:
    for marker in (Personal, Frozen, LocallyAdapted, PerUser, PerItem, Initialized):
        layer = nn.Linear(1, 1)
        assert marker(layer) is layer
    assert "dense.weight" in dict(Model(1, 1).named_parameters())


def test_the_constructor_keeps_its_signature() -> None:
    for kind in (Model, Child):
        assert list(inspect.signature(kind).parameters) == ["num_users", "num_items"]


def test_ownership_survives_a_copy_and_the_loading_of_values() -> None:
    model = Model(3, 4)
    values = model.initial([name for name, _ in model.named_parameters()], np.random.default_rng(0))
    copy = deepcopy(model)
    copy.load(values)
    assert copy.user_rows == model.user_rows
    assert copy.personal_names() == model.personal_names()


def test_frozen_by_configuration_is_added_to_frozen_by_declaration() -> None:
    model = Model(3, 4)
    model.freeze(["item"])
    assert model.frozen == {"item.weight", "fixed.weight", "fixed.bias"}
    with pytest.raises(ConfigError, match="freeze='nothing' names no parameter of Model"):
        model.freeze(["nothing"])
    assert Model(3, 4).frozen == {"fixed.weight", "fixed.bias"}


def test_a_parameter_of_users_and_items_is_rejected() -> None:
    class Both(Recommender):
        def __init__(self) -> None:
            super().__init__()
            self.table = PerUser(PerItem(nn.Parameter(torch.zeros(2, 2))))

        @override
        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            return self.table[users, items]

    with pytest.raises(ValueError, match="table is declared both per user and per item"):
        Both()


def drawn(layer: nn.Module, name: str, shape: tuple[int, ...]) -> Float32Array:
    class One(Recommender):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        @override
        def forward(self, users: Tensor, items: Tensor) -> Tensor:
            return users * items

    return One().initial_value(f"layer.{name}", shape, np.random.default_rng(1))


def test_initial_values_are_drawn_from_the_declared_distribution() -> None:
    rng = np.random.default_rng
    uniform, normal = Uniform(0.3), Normal(2.0)
    layer = Initialized(nn.Linear(4, 5), normal, bias=uniform)
    assert_array_equal(drawn(layer, "weight", (5, 4)), normal((5, 4), rng(1)))
    assert_array_equal(drawn(layer, "bias", (5,)), uniform((5,), rng(1)))
    assert np.abs(drawn(layer, "bias", (5,))).max() <= 0.3


def test_undeclared_initial_values_follow_the_type_of_the_layer() -> None:
    rng = np.random.default_rng
    linear = nn.Linear(4, 5)
    assert_array_equal(drawn(linear, "weight", (5, 4)), XavierUniform()((5, 4), rng(1)))
    assert_array_equal(drawn(linear, "bias", (5,)), np.zeros(5))
    assert_array_equal(drawn(nn.LayerNorm(3), "weight", (3,)), np.ones(3))
    assert_array_equal(drawn(nn.LayerNorm(3), "bias", (3,)), np.zeros(3))
    with pytest.raises(ValueError, match=r"layer\.weight has no declared initial distribution"):
        drawn(nn.Embedding(3, 2), "weight", (3, 2))


def test_the_rows_of_a_table_may_differ_from_those_at_construction() -> None:
    values = Model(3, 4).initial_value("renamed.weight", (7, 2), np.random.default_rng(0))
    assert values.shape == (7, 2)
    assert len(np.unique(values, axis=0)) == 7

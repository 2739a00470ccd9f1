"""Two towers: one makes a vector of what is known of a user, the other of what is known of an item.

Nothing hangs on who a user or which item it is: users and items that never took part in training
are scored like all others, and items with equal features get equal scores.

Shared: the layers of both towers, the only thing that travels. Public: the items' features (genres
and year), which every device has with the catalogue. Personal, and never learnt: the attributes a
user filled in, and the *profile*, the mean features of the items they had. The tower's first layer
is linear, so that the mean of features is as good as the mean of the vectors it makes of each. In
some rounds a user trains as if without a history, so that users without one can be served.

Source: Huang et al. 2013 (DSSM), section 3.2; Yi et al. 2019, section 3, for the two towers;
Covington, Adams and Sargin 2016, section 3.1, for the mean over the history; Volkovs, Yu and
Poutanen 2017 (DropoutNet), section 4, for training without it.
"""

from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedrec_flower.core.errors import require
from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.core.types import Float32Array, IndexArray, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.base import Recommender, check_dropout, xavier_uniform


class TwoTower(Recommender):
    """Score = user tower (attributes, profile) . item tower (features) + bias of the features.

    Args:
        num_users: how many users are loaded at first.
        task: "ranking".
        item_features: float32 (num_items, num_features), the public catalogue.
        num_attributes: how many numbers say what a user is like; 0 where users say nothing.
        embedding_dim: length of the vectors that the towers end in.
        hidden_dims: widths of each tower's hidden layers.
        history_dropout: share of the rounds that a user trains in without a history, in [0, 1).

    Raises:
        ConfigError: if nothing is known of items, ratings are to be predicted, or a width or share
            is impossible.
    """

    user_rows: ClassVar[frozenset[str]] = frozenset({"user_features"})
    item_rows: ClassVar[frozenset[str]] = frozenset({"item_features"})
    user_features: Tensor
    item_features: Tensor

    def __init__(
        self,
        num_users: int,
        task: str,
        item_features: Float32Array,
        num_attributes: int,
        embedding_dim: int,
        hidden_dims: list[int],
        history_dropout: float,
    ) -> None:
        name = type(self).__name__
        require(task == "ranking", f"{name} ranks and cannot predict ratings: choose task=ranking")
        num_features = item_features.shape[1]
        require(
            num_features > 0,
            f"{name} scores items by their features and these data tell no genres or years: "
            "choose another dataset, or a model that does without",
        )
        widths = [*hidden_dims, embedding_dim]
        require(min(widths) >= 1, f"model.hidden_dims and embedding_dim must be positive: {widths}")
        check_dropout("history_dropout", history_dropout)
        super().__init__()
        self.history_dropout = history_dropout
        self.catalogue = np.array(item_features, np.float32)
        unknown = torch.zeros(num_users, num_attributes + num_features)
        self.register_buffer("user_features", unknown)
        self.register_buffer("item_features", torch.from_numpy(self.catalogue))
        self.user_tower = _tower([unknown.shape[1], *hidden_dims, embedding_dim])
        self.item_tower = _tower([num_features, *hidden_dims, embedding_dim + 1])

    def features(
        self,
        attributes: Float32Array,
        history: Columns,
        items: IndexArray | None,
    ) -> Tensors:
        """See `Recommender.features`."""
        of_users = np.concatenate([attributes, self._profiles(history)], axis=1)
        of_items = self.catalogue if items is None else self.catalogue.take(items, axis=0)
        return {"user_features": of_users, "item_features": of_items}

    def _profiles(self, history: Columns) -> Float32Array:
        """Mean features of what each user had, float32 (num_users, num_features); zeros if none."""
        length = np.diff(history.offsets)
        sums = np.zeros((len(length), self.catalogue.shape[1]), np.float32)
        scatter_add_rows(sums, history.users(), self.catalogue.take(history.item, axis=0))
        sums /= np.maximum(length, 1)[:, None].astype(np.float32)
        return sums

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """See `Recommender.forward`."""
        user = self._user_vectors(functional.embedding(users, self.user_features))
        scores: Tensor = (user * self.item_vectors(items)).sum(-1)
        return scores

    def score_all(self, users: Tensor) -> Tensor:
        """See `Recommender.score_all`; each tower once, then one matrix product."""
        items = self.item_vectors(torch.arange(len(self.item_features)))
        return self._user_vectors(self.user_features[users]) @ items.T

    def item_vectors(self, items: Tensor) -> Tensor:
        """Vectors (n, embedding_dim + 1) of items (n,); the last number is a bias."""
        vectors: Tensor = self.item_tower(functional.embedding(items, self.item_features))
        return vectors

    def _user_vectors(self, features: Tensor) -> Tensor:
        """Vectors (n, embedding_dim + 1); the last number is the one that meets the bias."""
        return functional.pad(self.user_tower(features), (0, 1), value=1.0)

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Xavier weights, zero biases."""
        if name.endswith("bias"):
            return np.zeros(shape, np.float32)
        return xavier_uniform(shape, rng)


def _tower(widths: list[int]) -> nn.Sequential:
    """Linear layers from the first width to the last, with a ReLU between any two."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])

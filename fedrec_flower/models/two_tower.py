"""Two towers: a user vector from the user's features and an item vector from the item's features.

No parameter belongs to a single user or item: users and items that never took part in training are
scored like all others, and items with equal features get equal scores.

Shared: the layers of both towers, which are all that is sent. Public: the items' features (genres
and year), which every device has with the catalogue. Personal and never trained: the attributes of
a user, and the *profile*, the mean features of the user's items. The first layer of the tower is
linear, so the mean of features gives the same result as the mean of the layer's outputs. In some
rounds a user trains as if without a history, so that users without one can be served.

Source: Huang et al. 2013 (DSSM), section 3.2; Yi et al. 2019, section 3, for the two towers;
Covington, Adams and Sargin 2016, section 3.1, for the mean over the history; Volkovs, Yu and
Poutanen 2017 (DropoutNet), section 4, for training without it.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.core.types import Float32Array, IndexArray, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.abilities import SideInformation
from fedrec_flower.models.base import Recommender, check_dropout
from fedrec_flower.models.layers import PerItem, PerUser


class TwoTower(Recommender, SideInformation):
    """Score = user tower (attributes, profile) . item tower (features) + bias of the features.

    Args:
        num_users: number of users that are loaded first.
        task: "ranking".
        item_features: float32 (num_items, num_features), the public catalogue.
        num_attributes: number of attributes of a user; 0 if the data have none.
        embedding_dim: length of the towers' output vectors.
        hidden_dims: widths of each tower's hidden layers.
        history_dropout: share of the rounds in which a user trains without a history, in [0, 1).

    Raises:
        ConfigError: if the items have no features, the task is rating, or a width or share is
            impossible.
    """

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
            f"{name} scores items by their features, and these data have no genres or years: "
            "choose another dataset or model",
        )
        widths = [*hidden_dims, embedding_dim]
        require(min(widths) >= 1, f"model.hidden_dims and embedding_dim must be positive: {widths}")
        check_dropout("history_dropout", history_dropout)
        super().__init__()
        self.history_dropout = history_dropout
        self.catalogue = np.array(item_features, np.float32)
        num_user_features = num_attributes + num_features
        self.register_buffer("user_features", PerUser(torch.zeros(num_users, num_user_features)))
        self.register_buffer("item_features", PerItem(torch.from_numpy(self.catalogue)))
        self.user_tower = _tower([num_user_features, *hidden_dims, embedding_dim])
        self.item_tower = _tower([num_features, *hidden_dims, embedding_dim + 1])

    @override
    def side_information(
        self, attributes: Float32Array, history: Columns, items: IndexArray | None
    ) -> Tensors:
        of_users = np.concatenate([attributes, self._profiles(history)], axis=1)
        of_items = self.catalogue if items is None else self.catalogue.take(items, axis=0)
        return {"user_features": of_users, "item_features": of_items}

    def _profiles(self, history: Columns) -> Float32Array:
        """Mean features of each user's items, (num_users, num_features); zeros without items."""
        length = np.diff(history.offsets)
        sums = np.zeros((len(length), self.catalogue.shape[1]), np.float32)
        scatter_add_rows(sums, history.users(), self.catalogue.take(history.item, axis=0))
        sums /= np.maximum(length, 1)[:, None].astype(np.float32)
        return sums

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        user = self._user_vectors(functional.embedding(users, self.user_features))
        scores: Tensor = (user * self.item_vectors(items)).sum(-1)
        return scores

    @override
    def score_all(self, users: Tensor) -> Tensor:
        items = self.item_vectors(torch.arange(len(self.item_features)))
        return self._user_vectors(self.user_features[users]) @ items.T

    def item_vectors(self, items: Tensor) -> Tensor:
        """Vectors (n, embedding_dim + 1) of items (n,); the last number is a bias."""
        vectors: Tensor = self.item_tower(functional.embedding(items, self.item_features))
        return vectors

    def _user_vectors(self, features: Tensor) -> Tensor:
        """Vectors (n, embedding_dim + 1); the last number is 1, the factor of the item's bias."""
        return functional.pad(self.user_tower(features), (0, 1), value=1.0)


def _tower(widths: list[int]) -> nn.Sequential:
    """Linear layers from the first width to the last, with a ReLU between any two."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])

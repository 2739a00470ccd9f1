"""`check_model` accepts every model of the package and rejects models that break the contract."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import get_class
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower import testing
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.abilities import HistoryBased
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.layers import ItemEmbedding, Normal, UserEmbedding
from fedrec_flower.testing import check_model
from tests.helpers.model_yamls import EVERY_MODEL, node


@EVERY_MODEL
def test_check_model_accepts_every_model_of_the_package(path: Path, task: Any) -> None:
    arguments = node(path)
    model_class = get_class(arguments.pop("_target_"))
    del arguments["name"]
    small = {"embedding_dim": 4, "hidden_dims": [4], "num_heads": 2, "max_length": 3, "rank": 2}
    arguments |= {name: value for name, value in small.items() if name in arguments}
    check_model(model_class, task=task, **arguments)


class Vectors(Recommender):
    """A correct model, which the tests below change."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.user = UserEmbedding(num_users, 3, init=Normal(0.1))
        self.item = ItemEmbedding(num_items, 3, init=Normal(0.1))

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        scores: Tensor = (self.user(users) * self.item(items)).sum(-1)
        return scores


class UndeclaredUsers(Vectors):
    """Its user vectors would be sent to the server."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.user_bias = nn.Parameter(torch.zeros(num_users, 1))


class UndeclaredItems(Vectors):
    """Its item biases have no owner."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.item_bias = nn.Parameter(torch.zeros(num_items, 1))


class UnseededLayer(Vectors):
    """The initial values of its layer are PyTorch's."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.layer = nn.GRUCell(3, 3)


class UnseededInit(Recommender):
    """Its initial values ignore the generator."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.item = ItemEmbedding(num_items, 1, init=lambda shape, _: torch.randn(shape).numpy())

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        scores: Tensor = self.item(items).squeeze(-1)
        return scores


class OneColumn(Vectors):
    """It returns a column in place of a vector."""

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return super().forward(users, items)[:, None]


class OtherScoreAll(Vectors):
    """`score_all` and `forward` disagree."""

    @override
    def score_all(self, users: Tensor) -> Tensor:
        return super().score_all(users) + 1


class NotANumber(Vectors):
    """It divides by zero."""

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return super().forward(users, items) / torch.zeros(())


class BatchNormalized(Vectors):
    """The score of a pair depends on the other pairs of the batch."""

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        scores = super().forward(users, items)
        return scores - scores.mean()


class Constant(Vectors):
    """It does not learn."""

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return super().forward(users, items).detach() + 0 * super().forward(users, items)


class Leaking(Vectors, HistoryBased):
    """It is evaluated with the held-out items of the data that `check_model` makes."""

    @override
    def set_history(self, history: Columns) -> None:
        held_out = {
            data.train.item.tobytes(): int(data.test.item[0])
            for data in testing._clients()  # no public way gives these items
        }
        num_users = len(history.offsets) - 1
        self.bonus = torch.zeros(num_users, len(self.item.weight))
        for user in range(num_users):
            items = history.slice(user, user + 1).item
            self.bonus[user, held_out[items.tobytes()]] = 100.0

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        scores = super().forward(users, items)
        return scores if torch.is_grad_enabled() else scores + self.bonus[users, items]


@pytest.mark.parametrize(
    ("model_class", "message"),
    [
        (UndeclaredUsers, "user_bias has a row per user and is not declared so"),
        (UndeclaredItems, "item_bias has a row per item and is not declared so"),
        (UnseededLayer, "layer.weight_ih has no declared initial distribution"),
        (UnseededInit, "item.weight depends on PyTorch's global random state"),
        (OneColumn, "must return one float32 score per pair"),
        (OtherScoreAll, "score_all differs from forward"),
        (NotANumber, "score that is not finite"),
        (BatchNormalized, "score_all differs from forward|training differ in"),
        (Constant, "training does not lower the loss"),
        (Leaking, "held-out items rank at percentile 1.00"),
    ],
)
def test_check_model_names_the_broken_rule(model_class: type[Recommender], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_model(model_class)


def test_check_model_accepts_a_correct_model() -> None:
    check_model(Vectors)

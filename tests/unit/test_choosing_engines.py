"""A model gets the fastest engine that gives it the same numbers, and is told when it does not."""

import logging
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedrec_flower.models import MF, NCF, Recommender
from fedrec_flower.training import LocalTraining, announce_engine, choose_engine


class Branching(Recommender):
    """Its forward asks for the value of a tensor, which no vectorization can answer."""

    item_rows: ClassVar[frozenset[str]] = frozenset({"bias.weight"})

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.bias = nn.Embedding(num_items, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        del users
        scores: Tensor = self.bias(items).squeeze(-1)
        return scores if float(scores.sum()) >= 0 else -scores

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        del name, rng
        return np.zeros(shape, np.float32)


def training(engine: str = "vectorized", optimizer: str = "sgd") -> LocalTraining:
    return LocalTraining(
        engine=engine,  # type: ignore[arg-type]  # a parameter of the tests
        memory_budget_mb=8,
        loss="bce",
        optimizer=optimizer,  # type: ignore[arg-type]  # a parameter of the tests
        learning_rate=0.1,
        dense_learning_rate=0.1,
        weight_decay=0.0,
        local_epochs=1,
        batch_size=4,
        num_negatives=1,
    )


def ncf(variant: str) -> NCF:
    return NCF(1, 5, None, "ranking", variant, 2, [4, 2], 0.1)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        (MF(1, 5, None, "ranking", 2, 0.1), training(), "CompiledEngine"),
        (ncf("gmf"), training(), "CompiledEngine"),
        (ncf("neumf"), training(), "VectorizedEngine"),
        (MF(1, 5, None, "ranking", 2, 0.1), training(optimizer="adam"), "VectorizedEngine"),
        (MF(1, 5, None, "ranking", 2, 0.1), training("sequential"), "SequentialEngine"),
        (Branching(5), training(), "SequentialEngine"),
    ],
)
def test_each_model_gets_the_engine_that_fits(
    model: Recommender, settings: LocalTraining, expected: str
) -> None:
    rest = {"task": "ranking", "negatives": "honest", "num_items": 5, "seed": 1}
    assert type(choose_engine(model, settings, **rest)).__name__ == expected


def test_a_model_that_cannot_be_vectorized_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        announce_engine(Branching(5), training())
    assert "Branching cannot be vectorized" in caplog.text


def test_nothing_is_said_where_nothing_changes(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        announce_engine(ncf("neumf"), training())
        announce_engine(Branching(5), training("sequential"))
    assert caplog.text == ""
    assert torch.is_grad_enabled()

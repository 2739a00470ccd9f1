"""The choice of the trainer for a model and its settings, and its warnings."""

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.models.autoencoder import Autoencoder
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.fedrecon import FedRecon
from fedrec_flower.models.gru4rec import GRU4Rec
from fedrec_flower.models.layers import ItemEmbedding, Zeros
from fedrec_flower.models.lightgcn import LightGCN
from fedrec_flower.models.mf import MF
from fedrec_flower.models.ncf import NCF
from fedrec_flower.models.sasrec import SASRec
from fedrec_flower.models.sequential import SequentialRecommender
from fedrec_flower.training.compiled import CompiledTrainer
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.factory import check_trainer, choose_trainer
from fedrec_flower.training.sequential import SequentialTrainer
from fedrec_flower.training.trainer import LocalTrainer
from fedrec_flower.training.vectorized import VectorizedTrainer
from tests.helpers.one_round import Kind, Round

REST: dict[str, Any] = {"task": "ranking", "negatives": "honest", "num_items": 5, "seed": 1}


class Branching(Recommender):
    """Its `forward` branches on the value of a tensor, which `vmap` does not support."""

    def __init__(self, num_items: int) -> None:
        super().__init__()
        self.bias = ItemEmbedding(num_items, 1, init=Zeros())

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        del users
        scores: Tensor = self.bias(items).squeeze(-1)
        return scores if float(scores.sum()) >= 0 else -scores


class Recurrent(SequentialRecommender):
    """PyTorch's recurrent layer, which `torch.func.vmap` does not support."""

    def __init__(self) -> None:
        super().__init__(1, 5, "ranking", 2, 3, init_std=0.1, input_dropout=0.0)
        self.cell = nn.GRU(2, 2, batch_first=True)

    def encode_windows(self, vectors: Tensor, present: Tensor) -> Tensor:
        del present
        states: Tensor = self.cell(vectors)[0]
        return states


def training(
    engine: str = "vectorized", optimizer: str = "sgd", device: str = "cpu"
) -> LocalTraining:
    return LocalTraining(
        engine=engine,  # type: ignore[arg-type]  # a parameter of the tests
        device=device,  # type: ignore[arg-type]  # as above
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


def client(num_interactions: int) -> ClientData:
    offsets = np.array([0, num_interactions])
    item = np.zeros(num_interactions, np.int32)
    part, nothing = Columns(offsets, item, None), Columns(np.zeros(2, np.int64), item[:0], None)
    attributes = np.zeros((1, 0), np.float32)
    return ClientData(7, 1, 0, np.zeros(1, np.int32), part, nothing, nothing, attributes)


def ncf(variant: str) -> NCF:
    return NCF(1, 5, None, "ranking", variant, 2, [4, 2], 0.1)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(
    ("model", "settings", "expected"),
    [
        (MF(1, 5, None, "ranking", 2, 0.1), training(), "CompiledTrainer"),
        (ncf("gmf"), training(), "CompiledTrainer"),
        (ncf("neumf"), training(), "VectorizedTrainer"),
        (MF(1, 5, None, "ranking", 2, 0.1), training(optimizer="adam"), "VectorizedTrainer"),
        (MF(1, 5, None, "ranking", 2, 0.1), training("sequential"), "SequentialTrainer"),
        (Branching(5), training(), "SequentialTrainer"),
        (Recurrent(), training(), "SequentialTrainer"),
        (GRU4Rec(1, 5, "ranking", 2, 3, 0.1, 0.0), training(), "VectorizedTrainer"),
        (SASRec(1, 5, "ranking", 2, 3, 1, 1, 0.1, 0.0), training(), "VectorizedTrainer"),
        (FedRecon(1, 5, None, "ranking", 2, 0.1, 2, 1.0, 1, 0.5), training(), "VectorizedTrainer"),
        (Autoencoder(1, 5, None, "ranking", 2, 0.1, 0.5), training(), "VectorizedTrainer"),
        (LightGCN(1, 5, None, "ranking", 2, 0.1, 1, 0.0), training(), "VectorizedTrainer"),
    ],
)
def test_trainer_of_each_model(model: Recommender, settings: LocalTraining, expected: str) -> None:
    assert type(choose_trainer(model, settings, **REST)).__name__ == expected


def test_model_that_cannot_be_vectorized_causes_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        check_trainer(Branching(5), training(), client(3), **REST)
        check_trainer(Recurrent(), training(), client(3), **REST)
    assert "Branching cannot be vectorized" in caplog.text
    assert "Recurrent cannot be vectorized" in caplog.text


def test_supported_model_causes_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        check_trainer(ncf("neumf"), training(), client(3), **REST)
        check_trainer(Branching(5), training("sequential"), client(3), **REST)
    assert caplog.text == ""
    assert torch.is_grad_enabled()


def test_client_above_the_memory_budget_is_an_error_before_training() -> None:
    with pytest.raises(ConfigError, match=r"client 7 needs about \d+ MB.*memory_budget_mb"):
        check_trainer(ncf("neumf"), training(), client(1_000_000), **REST)


def test_compiled_trainer_needs_no_memory_for_activations() -> None:
    check_trainer(MF(1, 5, None, "ranking", 128, 0.1), training(), client(20_000), **REST)


@pytest.mark.parametrize("model", [MF(1, 5, None, "ranking", 2, 0.1), ncf("neumf")])
@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without CUDA")
def test_absent_cuda_is_an_error_before_training(model: Recommender) -> None:
    with pytest.raises(ConfigError, match=r"training\.device=cuda finds no CUDA device"):
        check_trainer(model, training(device="cuda"), client(3), **REST)
    assert choose_trainer(model, training(device="auto"), **REST)


def test_sequential_trainer_refuses_cuda() -> None:
    with pytest.raises(ConfigError, match=r"device=cuda needs training\.engine=vectorized"):
        training("sequential", device="cuda")


@pytest.mark.parametrize(
    ("kind", "optimizer", "engine", "chosen"),
    [
        ("mf", "sgd", "sequential", SequentialTrainer),
        ("mf", "sgd", "vectorized", CompiledTrainer),
        ("gmf", "sgd", "vectorized", CompiledTrainer),
        ("mf", "adam", "vectorized", VectorizedTrainer),
        ("neumf", "sgd", "vectorized", VectorizedTrainer),
        ("autoencoder", "sgd", "vectorized", VectorizedTrainer),
    ],
)
def test_settings_and_model_choose_the_trainer(
    kind: Kind, optimizer: str, engine: str, chosen: type[LocalTrainer]
) -> None:
    assert type(Round(kind, optimizer=optimizer, engine=engine).engine) is chosen

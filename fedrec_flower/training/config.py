"""The settings of local training and the torch device they name."""

from dataclasses import dataclass
from typing import Literal

import torch

from fedrec_flower.core.errors import ConfigError, require

DeviceName = Literal["auto", "cpu", "cuda"]


def find_device(name: DeviceName) -> torch.device:
    """Resolve a device setting in this process; "auto" is CUDA if this process has a device.

    Raises:
        ConfigError: if CUDA is requested and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "training.device=cuda finds no CUDA device in this process: choose training.device=cpu "
            "or auto (with federation=simulation, federation.num_gpus must be above 0)"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """The training group of the configuration; defaults live in its yaml.

    Attributes:
        engine: "vectorized" trains many clients at once (MF with SGD in a compiled loop),
            "sequential" trains one after another in an ordinary PyTorch loop, the reference. Both
            give the same results up to rounding.
        device: where the vectorized trainer computes: "cpu", "cuda", or "auto" for CUDA if a
            device exists and the compiled loop does not support the model.
        memory_budget_mb: memory of all clients that are trained at once, in megabytes.
        loss: "bce", "bpr" or "softmax" for ranking, "mse" to predict ratings (or 0/1 labels).
        optimizer: the clients' optimiser; its state is reset every round.
        learning_rate: for tables with a row per user or item.
        dense_learning_rate: for all other parameters.
        weight_decay: L2 factor on the table rows that a client touches, as in `torch.optim.SGD`.
        local_epochs: passes over the client's interactions per round.
        batch_size: samples per step. Positives and negatives both count (pairs for "bpr", a
            positive item with all its negatives for "softmax"). None takes all samples of the
            epoch in one step: full-batch descent.
        num_negatives: sampled negatives per interaction, new in every epoch; unused for ratings.
    """

    engine: Literal["vectorized", "sequential"]
    device: DeviceName
    memory_budget_mb: int
    loss: Literal["bce", "bpr", "softmax", "mse"]
    optimizer: Literal["sgd", "adam"]
    learning_rate: float
    dense_learning_rate: float
    weight_decay: float
    local_epochs: int
    batch_size: int | None
    num_negatives: int

    @property
    def width(self) -> int:
        """Number of items per sample that the loss compares."""
        return {"bpr": 2, "softmax": 1 + self.num_negatives}.get(self.loss, 1)

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(
            (self.engine, self.device) != ("sequential", "cuda"),
            "training.device=cuda needs training.engine=vectorized: the reference runs on a CPU",
        )
        for name in ("local_epochs", "batch_size", "num_negatives", "memory_budget_mb"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"training.{name} must be at least 1: {value}")
        for name in ("learning_rate", "dense_learning_rate", "weight_decay"):
            if getattr(self, name) < 0:
                raise ConfigError(f"training.{name} must not be negative: {getattr(self, name)}")

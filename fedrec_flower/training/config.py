"""The settings of local training and the torch device they name."""

from dataclasses import dataclass
from typing import Literal

import torch

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.ranges import NonNegativeFloat, PositiveInt, check_fields

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
    memory_budget_mb: PositiveInt
    loss: Literal["bce", "bpr", "softmax", "mse"]
    optimizer: Literal["sgd", "adam"]
    learning_rate: NonNegativeFloat
    dense_learning_rate: NonNegativeFloat
    weight_decay: NonNegativeFloat
    local_epochs: PositiveInt
    batch_size: PositiveInt | None
    num_negatives: PositiveInt

    @property
    def width(self) -> int:
        """Number of items per sample that the loss compares."""
        return {"bpr": 2, "softmax": 1 + self.num_negatives}.get(self.loss, 1)

    def __post_init__(self) -> None:
        """Check the ranges, and that engine and device fit."""
        check_fields("training", self)
        require(
            (self.engine, self.device) != ("sequential", "cuda"),
            "training.device=cuda needs training.engine=vectorized: the reference runs on a CPU",
        )

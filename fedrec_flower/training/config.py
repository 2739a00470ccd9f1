"""How a client trains.

Where the vectorized engine computes.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from fedrec_flower.core.errors import ConfigError, require

DeviceName = Literal["auto", "cpu", "cuda"]


def find_device(name: DeviceName) -> torch.device:
    """The device of this process that a setting names; "auto" is CUDA where there is one.

    Raises:
        ConfigError: if CUDA is asked for and absent.
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
        engine: how a node trains its clients: "vectorized" many at once (MF with SGD in a
            compiled loop), "sequential" one after another in an ordinary PyTorch loop, the
            reference. Both give the same results up to rounding.
        device: where the vectorized engine computes: "cpu", "cuda", or "auto" for CUDA where there
            is one and the compiled loop cannot do the work.
        memory_budget_mb: megabytes that clients trained at once may take together.
        loss: "bce", "bpr" or "softmax" to rank, "mse" to predict ratings (or 0/1 labels).
        optimizer: of the client; its state starts afresh every round.
        learning_rate: for tables with a row per user or item.
        dense_learning_rate: for all other parameters.
        weight_decay: L2 pull on the table rows a client touches, as in `torch.optim.SGD`.
        local_epochs: passes over the client's interactions a round.
        batch_size: samples a step; positives and negatives both count (pairs for "bpr", a
            liked item with all of its negatives for "softmax"). None takes all samples of the
            epoch in one step: full-batch descent.
        num_negatives: sampled negatives per interaction, fresh every epoch; unused for ratings.
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
        """Items in a sample that its loss sees together."""
        return {"bpr": 2, "softmax": 1 + self.num_negatives}.get(self.loss, 1)

    def __post_init__(self) -> None:
        """Refuse values that no training can use."""
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

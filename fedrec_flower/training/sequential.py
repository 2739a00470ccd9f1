"""The reference engine: an ordinary PyTorch loop, one client after another.

Every client trains a *sub-model*: its own users' rows and only those item rows that its samples
touch, so a step costs what the client's data cost and weight decay reaches no other row.

Source: McMahan et al. 2017, Algorithm 1, ClientUpdate.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.aggregation import Update
from fedrec_flower.errors import TrainingError
from fedrec_flower.models.base import Recommender, Tensors
from fedrec_flower.prepared import ClientData
from fedrec_flower.seeding import generator
from fedrec_flower.training.losses import LOSSES
from fedrec_flower.training.samples import Negatives, Samples, draw_samples, rating_samples
from fedrec_flower.training.settings import LocalResult, LocalTraining


@dataclass(frozen=True, slots=True)
class SequentialEngine:
    """Trains clients one by one; what a client learns depends on no other client.

    Attributes:
        model: the recommender whose parameters are filled for each client in turn.
        training: how a client trains.
        task: "ranking" samples negatives, "rating" predicts raw ratings.
        negatives: the pool negatives are drawn from; "legacy" leaks.
        num_items: size of the catalogue.
        seed: the experiment's seed.
    """

    model: Recommender
    training: LocalTraining
    task: Literal["ranking", "rating"]
    negatives: Negatives
    num_items: int
    seed: int

    def train(
        self,
        clients: Sequence[ClientData],
        shared: Tensors,
        personal: Callable[[ClientData], Tensors],
        round_: int,
    ) -> Iterator[LocalResult]:
        """Train each client from the same global parameters.

        Args:
            clients: the cohort hosted here.
            shared: global parameters by name, full tables; left unchanged.
            personal: gives a client's personal parameters, as arrays of its own.
            round_: the round, part of the address of every random draw.

        Raises:
            TrainingError: if a loss is not finite; names client and round.
        """
        for data in clients:
            yield self._train_client(data, shared, personal(data), round_)

    def _train_client(
        self, data: ClientData, shared: Tensors, personal: Tensors, round_: int
    ) -> LocalResult:
        epochs = self._draw_epochs(data, round_)
        rows, places = _touched_rows(epochs)
        tables = self.model.item_rows
        before = {n: v[rows] if n in tables else v for n, v in shared.items()}
        mine = {n: v[rows] if n in tables else v for n, v in personal.items()}
        after = {n: np.array(v) for n, v in before.items()}
        self.model.load(after | mine)
        shuffle = generator(self.seed, "shuffle", round_, data.client)
        loss = self._run(epochs, places, shuffle)
        if not np.isfinite(loss):
            advice = "lower training.learning_rate or training.dense_learning_rate"
            raise TrainingError(
                f"client {data.client}, round {round_}: the loss is {loss}; {advice}"
            )
        for name in tables & personal.keys():
            personal[name][rows] = mine[name]
        change = {name: after[name] - before[name] for name in after}
        update = Update(data.client, len(data), rows, change)
        return LocalResult(update, personal, loss)

    def _draw_epochs(self, data: ClientData, round_: int) -> list[Samples]:
        """Draw the samples of every local epoch, so that the touched rows are known up front."""
        if self.task == "rating":
            return [rating_samples(data)] * self.training.local_epochs
        rng = generator(self.seed, "negatives", round_, data.client)
        return [
            draw_samples(
                data,
                self.num_items,
                self.training.num_negatives,
                rng,
                pairwise=self.training.loss == "bpr",
                pool=self.negatives,
            )
            for _ in range(self.training.local_epochs)
        ]

    def _run(
        self, epochs: list[Samples], places: list[NDArray[np.int64]], shuffle: np.random.Generator
    ) -> float:
        """Run the steps of all epochs; the parameters change in place. Returns the mean loss."""
        optimizer, loss_of = self._optimizer(), LOSSES[self.training.loss]
        total, count = 0.0, 0
        for samples, place in zip(epochs, places, strict=True):
            order = shuffle.permutation(len(samples))
            users = torch.from_numpy(samples.user[order])
            items = torch.from_numpy(place[order])
            target = torch.from_numpy(samples.target[order])
            size = self.training.batch_size or len(samples)
            for start in range(0, len(samples), size):
                batch = slice(start, start + size)
                optimizer.zero_grad()
                loss = loss_of(self._scores(users[batch], items[batch]), target[batch])
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                total += loss.item() * len(users[batch])
                count += len(users[batch])
        return total / max(count, 1)

    def _scores(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Scores (batch, width) of the items (batch, width) for the users (batch,)."""
        width = items.shape[1]
        scores: torch.Tensor = self.model(users.repeat_interleave(width), items.reshape(-1))
        return scores.view(-1, width)

    def _optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser: tables and dense parameters have rates of their own."""
        rows = self.model.user_rows | self.model.item_rows
        named = dict(self.model.named_parameters())
        tables = [value for name, value in named.items() if name in rows]
        dense = [value for name, value in named.items() if name not in rows]
        groups = [
            {
                "params": tables,
                "lr": self.training.learning_rate,
                "weight_decay": self.training.weight_decay,
            },
            {"params": dense, "lr": self.training.dense_learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        if self.training.optimizer == "adam":
            return torch.optim.Adam(groups)
        return torch.optim.SGD(groups)


def _touched_rows(epochs: list[Samples]) -> tuple[NDArray[np.int64], list[NDArray[np.int64]]]:
    """The distinct item codes of all samples, and each sample's items as places among them."""
    rows, places = np.unique(
        np.concatenate([samples.item for samples in epochs]), return_inverse=True
    )
    width = epochs[0].item.shape[1]
    cuts = np.cumsum([len(samples) for samples in epochs])[:-1]
    return rows, np.split(places.reshape(-1, width), cuts)

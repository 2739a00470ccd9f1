"""How a node's sampled clients learn: by gradients, or by telling sums that the server solves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedrec_flower.aggregation import ROW_WEIGHT, Cost, UpdateSum, mean_over_all_clients
from fedrec_flower.client.store import ClientStore
from fedrec_flower.models.base import Recommender, Tensors
from fedrec_flower.models.exact import ExactRecommender
from fedrec_flower.prepared import ClientData, Columns, Prepared, starts
from fedrec_flower.privacy import NoPrivacy
from fedrec_flower.seeding import generator
from fedrec_flower.training import Engine

Metrics = dict[str, float]


class Trainer(Protocol):
    """What all clients of a node learn by."""

    @property
    def names(self) -> list[str]:
        """Names of the arrays that clients send, in message order; none where nothing travels."""
        ...

    def train(
        self, clients: Sequence[int], shared: Tensors, round_: int
    ) -> tuple[UpdateSum, Metrics]:
        """Train clients from the same global parameters.

        Args:
            clients: their codes.
            shared: global parameters by name; left unchanged.
            round_: the round.

        Returns:
            The sum of what they send, by `names`; and `loss`, the sum of their weighted training
            losses, and `bytes_up`, of what each would send if it were alone on its node.
        """
        ...

    def finish(self, total: UpdateSum, shared: Tensors) -> Tensors:
        """New shared parameters, if the clients behind the sum were all there are."""
        ...

    def alone(self, data: ClientData) -> Tensors:
        """What a client scores with that neither travels nor is kept: made when it is needed."""
        ...


@dataclass(frozen=True, slots=True)
class GradientTrainer:
    """Clients send what training changed, weighted by their number of interactions.

    Attributes:
        data: reader of the prepared folder.
        model: says which shared parameters have a row per item.
        engine: trains clients.
        store: personal parameters of the clients hosted here.
        privacy: the step applied to each client's update before anything is summed.
        names: see `Trainer`: the shared parameters.
    """

    data: Prepared
    model: Recommender
    engine: Engine
    store: ClientStore
    privacy: NoPrivacy
    names: list[str]

    def train(
        self, clients: Sequence[int], shared: Tensors, round_: int
    ) -> tuple[UpdateSum, Metrics]:
        """See `Trainer.train`."""
        shapes = {name: value.shape for name, value in shared.items()}
        total, loss, bytes_up = UpdateSum.zeros(shapes, self.data.num_items), 0.0, 0
        tables = [name for name in self.names if name in self.model.item_rows]
        cost = Cost.of({**shared, ROW_WEIGHT: total.row_weight}, [*tables, ROW_WEIGHT])
        members = [self.data.client(client) for client in clients]
        for trained in self.engine.train(members, shared, self.store, round_):
            cohort, touched = trained.cohort, trained.touched
            self.store.scatter(cohort, touched, trained.personal)
            self.store.keep_tuned(cohort, touched, shared, trained.updates.tensors)
            total.add(self.privacy.apply(trained.updates), tables)
            loss += float(trained.loss @ trained.updates.weights)
            bytes_up += int(cost.least(np.diff(trained.touched.offsets)).sum())
        return total, {"loss": loss, "bytes_up": bytes_up if shared else 0}

    def finish(self, total: UpdateSum, shared: Tensors) -> Tensors:
        """See `Trainer.finish`."""
        update = mean_over_all_clients(total)
        return {name: value + update[name] for name, value in shared.items()}

    def alone(self, data: ClientData) -> Tensors:
        """See `Trainer.alone`; nothing, the store keeps it all."""
        del data
        return {}


@dataclass(frozen=True, slots=True)
class ExactTrainer:
    """Clients send sufficient statistics, which no loss goes with.

    Attributes:
        data: reader of the prepared folder.
        model: the recommender.
        shares: whether anything travels. If not, each client solves its own statistics whenever
            it is scored: matrices of items by items, one per client, would fill a disk.
        num_rounds: how often it does.
        seed: the experiment's seed, for initial values.
    """

    data: Prepared
    model: ExactRecommender
    shares: bool
    num_rounds: int
    seed: int

    @property
    def names(self) -> list[str]:
        """See `Trainer.names`; the statistics."""
        return list(self.model.statistic_names) if self.shares else []

    def train(
        self, clients: Sequence[int], shared: Tensors, round_: int
    ) -> tuple[UpdateSum, Metrics]:
        """See `Trainer.train`; the loss is not a number."""
        del round_
        groups = [self.data.client(run.start, len(run)) for run in neighbours(clients)]
        history = _joined([data.train for data in groups])
        sums = self.model.statistics(history, shared) if self.names else {}
        total = UpdateSum(sums, float(len(history.item)), np.zeros(0))
        # Statistics travel as float32; of their shapes a single zero tells enough.
        sent = {n: np.broadcast_to(np.float32(0), array.shape) for n, array in sums.items()}
        cost = Cost.of({**sent, ROW_WEIGHT: total.row_weight}, [])
        return total, {"loss": float("nan"), "bytes_up": len(clients) * cost.whole if sums else 0}

    def finish(self, total: UpdateSum, shared: Tensors) -> Tensors:
        """See `Trainer.finish`."""
        return self.model.solve(total.tensors, shared)

    def alone(self, data: ClientData) -> Tensors:
        """See `Trainer.alone`; the solution of its own statistics."""
        if self.shares:
            return {}
        rng = generator(self.seed, "initial-personal", 0, data.client)
        initial = self.model.initial(self.model.shared_names(), rng)
        return self.model.solve_alone(data.train, initial, self.num_rounds)


def neighbours(clients: Sequence[int]) -> list[range]:
    """Runs of client codes that may be read as one, ascending."""
    ascending = np.sort(np.asarray(clients, np.int64))
    runs = np.split(ascending, np.flatnonzero(np.diff(ascending) > 1) + 1)
    return [range(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]


def _joined(histories: Sequence[Columns]) -> Columns:
    """The interactions of several groups of users, one group after another."""
    counts = np.concatenate([np.diff(history.offsets) for history in histories])
    offsets = starts(counts)
    return Columns(offsets, np.concatenate([history.item for history in histories]), None)

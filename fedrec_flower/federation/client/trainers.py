"""How a node's sampled clients learn: by gradients, or by telling sums that the server solves."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.limits import DIVERGED
from fedrec_flower.communication.packing import Cost
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import Seed, generator
from fedrec_flower.core.types import Sums, Tensors
from fedrec_flower.core.updates import ROW_WEIGHT, UpdateSum, mean_over_all_clients
from fedrec_flower.data.prepared import ClientData, Columns, Prepared, starts
from fedrec_flower.federation.client.state_store import ClientStore
from fedrec_flower.federation.client.update_pipeline import TrainContext, UpdatePipeline
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.strategies.client_updates import Guided, Plain
from fedrec_flower.threats.base import Attack
from fedrec_flower.threats.faults import FaultModel
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import LocalTrainer, Trained

_LOG = logging.getLogger(__name__)

_CELLS_AT_ONCE = 20_000_000  # answers of users about items: 80 MB


class Trainer(Protocol):
    """What all clients of a node learn by."""

    @property
    def names(self) -> list[str]:
        """Names of the arrays that clients send, in message order; none where nothing travels."""
        ...

    @property
    def tables(self) -> Collection[str]:
        """Those of `names` with a row per item."""
        ...

    def train(
        self,
        clients: Sequence[int],
        given: Versions,
        round_: int,
        attempt: int = 0,
        beside: Sequence[NDArray[Any]] = (),
        clip_norm: float = inf,
    ) -> TrainResult:
        """Train clients from what they are given.

        Args:
            clients: their codes.
            given: the shared parameters; left unchanged.
            round_: the round.
            attempt: how often the round was tried before.
            beside: what the strategy gives beside the parameters, in message order.
            clip_norm: what the server says of privacy; see `ServerMechanism.clip_norm`.
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
        pipeline: the steps between a client's data and the sum of the updates.
        faults: the fault model, for clients that do not take part in a round.
        trained: names of the shared parameters that are trained.
        method: what the strategy changes in the way they train.
        kept: what they keep for it.
    """

    data: Prepared
    model: Recommender
    engine: LocalTrainer
    store: ClientStore
    pipeline: UpdatePipeline
    faults: FaultModel
    trained: list[str]
    method: Plain
    kept: ClientState

    @property
    def names(self) -> list[str]:
        """See `Trainer.names`: the parameters that are trained, and what goes with them."""
        return self.pipeline.names

    @property
    def tables(self) -> Collection[str]:
        """See `Trainer.tables`."""
        return self.pipeline.tables

    def train(
        self,
        clients: Sequence[int],
        given: Versions,
        round_: int,
        attempt: int = 0,
        beside: Sequence[NDArray[Any]] = (),
        clip_norm: float = inf,
    ) -> TrainResult:
        """See `Trainer.train`."""
        controls = dict(zip(self.trained if self.method.controls else [], beside, strict=True))
        guide = Guided(self.method, controls, self.kept)
        context = TrainContext(round_, attempt, clip_norm, given)
        absent = self.faults.absent(clients, round_, attempt)
        present = (self.data.client(client) for client in clients if client not in absent)
        members = [self.pipeline.training_data(data, context) for data in present]
        result = self.pipeline.empty_result(given, self.data.num_items)
        result.failures |= absent
        for trained in self._trained(members, given, round_, guide):
            cohort, touched = trained.cohort, trained.touched
            self.store.scatter(cohort, touched, trained.personal)
            self.store.keep_tuned(cohort, touched, given, trained.updates.tensors)
            # Who diverged knows it, and so neither sends nor keeps anything of it.
            learnt, diverged = trained.split_diverged(self.tables)
            # A failure would reveal something about the data.
            if diverged and self.pipeline.mechanism.has_guarantee:
                _LOG.warning(
                    "round %d: the loss of %d clients is not finite, and they send a zero update, "
                    "for privacy hides who diverged: lower training.learning_rate or "
                    "training.dense_learning_rate",
                    round_,
                    len(diverged),
                )
                learnt, diverged = trained, []
            self.pipeline.add(guide.sent(learnt), result, context)
            result.failures |= dict.fromkeys(diverged, DIVERGED)
        return result

    def _trained(
        self, members: Sequence[ClientData], given: Versions, round_: int, guide: Guided
    ) -> Iterator[Trained]:
        """What clients have learnt, a chunk at a time.

        Under local privacy a client that cannot train sends a zero update, like one without data:
        an error would tell the server of the client's data.
        """
        if not protects_from_server(self.pipeline.mechanism):
            yield from self.engine.train(members, given, self.store, round_, guide)
            return
        try:
            chunks = [*self.engine.chunks(members)]
        except ConfigError:  # a client does not fit into the memory
            chunks = [[data] for data in members]
        for chunk in chunks:
            try:
                learnt = [*self.engine.train(chunk, given, self.store, round_, guide)]
            except Exception:  # noqa: BLE001  # whatever it is, it must not leave the node
                _LOG.exception("round %d: a client could not train", round_)
                learnt = [self._one_trained(data, given, round_, guide) for data in chunk]
            yield from learnt

    def _one_trained(
        self, data: ClientData, given: Versions, round_: int, guide: Guided
    ) -> Trained:
        try:
            (trained,) = self.engine.train([data], given, self.store, round_, guide)
        except Exception:  # noqa: BLE001  # as above
            _LOG.exception(
                "round %d: client %d could not train and sends a zero update, for privacy hides it",
                round_,
                data.client,
            )
            nothing = data.without_interactions()
            (trained,) = self.engine.train([nothing], given, self.store, round_, guide)
        return trained

    def finish(self, total: UpdateSum, shared: Tensors) -> Tensors:
        """See `Trainer.finish`."""
        mean = mean_over_all_clients(total)
        return {n: shared[n] + change for n, change in mean.items() if n in shared}

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
        seed: what initial values follow from; see `seeding`.
        attack: who claims to have had something else.
        faults: who is absent.
        privacy: how users bound or disguise what they tell.
        noise_source: where the randomness of privacy comes from.
    """

    data: Prepared
    model: ClosedFormRecommender
    shares: bool
    num_rounds: int
    seed: Seed
    attack: Attack
    faults: FaultModel
    privacy: PrivacyMechanism
    noise_source: NoiseSource

    @property
    def names(self) -> list[str]:
        """See `Trainer.names`; the statistics."""
        return list(self.model.statistic_names) if self.shares else []

    @property
    def tables(self) -> Collection[str]:
        """See `Trainer.tables`; statistics travel whole."""
        return ()

    def train(
        self,
        clients: Sequence[int],
        given: Versions,
        round_: int,
        attempt: int = 0,
        beside: Sequence[NDArray[Any]] = (),
        clip_norm: float = inf,
    ) -> TrainResult:
        """See `Trainer.train`; the loss is not a number, and nothing goes beside."""
        del beside, clip_norm
        lost = self.faults.absent(clients, round_, attempt)
        present = [client for client in clients if client not in lost]
        sums, weight = Sums(), 0.0
        for history, user_offsets in self._histories(present):
            share = self.privacy.user_weights(self.model, history, user_offsets)
            part = self.model.statistics(history, given.of(0), share) if self.names else {}
            sums = {name: value + sums[name] for name, value in part.items()} if sums else part
            weight += self.privacy.statistics_weight(history, len(user_offsets) - 1)
        total = UpdateSum(sums, weight, np.zeros(0))
        # Statistics travel as float32; of their shapes a single zero tells enough.
        sent = {n: np.broadcast_to(np.float32(0), array.shape) for n, array in sums.items()}
        cost = Cost.of({**sent, ROW_WEIGHT: total.row_weight}, [])
        bytes_up = len(present) * cost.whole if sums else 0
        return TrainResult(total, [], [], float("nan"), bytes_up, len(present), lost)

    def _histories(self, clients: Sequence[int]) -> Iterator[tuple[Columns, NDArray[np.int64]]]:
        """The histories that statistics are made of, and where each client's users begin.

        In one piece, unless histories are as long as the catalogue.
        """
        claims = list(self._claims(clients))
        if not (self.privacy.has_dense_histories and claims):
            held, sizes = np.diff(self.data.client_offsets), [np.zeros(0, np.int64)]
            sizes += [held[data.client : data.client + data.num_clients] for data in claims]
            histories = [self._disguised(data).train for data in claims]
            yield _joined(histories), starts(np.concatenate(sizes))
            return
        size = max(_CELLS_AT_ONCE // self.data.num_items, 1)
        for data in claims:
            for start in range(0, data.num_users, size):
                part = self._disguised(data.users(start, start + size))
                yield part.train, starts([part.num_users])

    def _claims(self, clients: Sequence[int]) -> Iterator[ClientData]:
        """What clients say that they had: honest neighbours as one, each liar by itself."""
        malicious = np.intersect1d(clients, self.attack.malicious_clients)
        for run in neighbours(np.setdiff1d(clients, malicious)):
            yield self.data.client(run.start, len(run))
        for client in malicious.tolist():
            yield self.attack.tamper(self.data.client(client))

    def _disguised(self, data: ClientData) -> ClientData:
        return self.privacy.training_data(data, self.data.num_items, self.noise_source)

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


def protects_from_server(privacy: PrivacyMechanism) -> bool:
    """Whether clients protect their data from the server, so that no error may tell of them."""
    return privacy.has_guarantee and not privacy.trusts_server


def neighbours(clients: Sequence[int] | NDArray[np.int64]) -> list[range]:
    """Runs of client codes that may be read as one, ascending."""
    ascending = np.sort(np.asarray(clients, np.int64))
    runs = np.split(ascending, np.flatnonzero(np.diff(ascending) > 1) + 1)
    return [range(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]


def _joined(histories: Sequence[Columns]) -> Columns:
    """The interactions of several groups of users, one group after another."""
    if not histories:
        return Columns(starts([]), np.zeros(0, np.int32), None)
    counts = np.concatenate([np.diff(history.offsets) for history in histories])
    offsets = starts(counts)
    return Columns(offsets, np.concatenate([history.item for history in histories]), None)

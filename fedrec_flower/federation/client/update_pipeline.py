"""From what a client learnt to what the server may use: each update's way, client by client."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.compression.base import Compression
from fedrec_flower.communication.compression.error_feedback import compress_with_feedback
from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.packing import Cost
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.errors import require
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.random import Seed, generator
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.privacy.mechanism import NoPrivacy
from fedrec_flower.privacy.noise import Chance
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.threats.base import NoAttack
from fedrec_flower.threats.faults import NoFaults, Odd
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import Trained

_OTHER_LAYOUT = Failure(FailureKind.WRONG_SHAPE, "it does not have the layout of the others")
_REPEATED = Failure(FailureKind.REPEATED, "counted once")


@dataclass(frozen=True, slots=True)
class Sending:
    """The steps between training and the sum, each client's by itself before anything is added.

    Attributes:
        privacy: what the client does to its update to protect itself.
        weigh: what updates weigh, float64 (num_clients,), given the clients' interactions.
        compression: how its message is made smaller.
        owed: what the clients' messages have lost and go on owing.
        attack: what malicious clients send instead.
        faults: what goes wrong on the way.
        limits: what no honest update exceeds; others are left out, and said to be.
        tables: names of the parameters with a row per item.
        names: names of the parameters that are sent.
        stacked: whether the server must see every update by itself.
        cost: what sending costs.
        chance: where the randomness of privacy comes from.
        seed: what the rounding of compression follows from; see `seeding`.
    """

    privacy: NoPrivacy
    weigh: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    compression: Compression
    owed: ClientState
    attack: NoAttack
    faults: NoFaults
    limits: Limits
    tables: frozenset[str]
    names: list[str]
    stacked: bool
    cost: Cost
    chance: Chance
    seed: Seed

    def answer(self, given: Versions, num_items: int) -> TrainResult:
        """What the node tells before any client has replied.

        Raises:
            ConfigError: if updates are to go by themselves, where noise is added to their sum.
        """
        require(
            not (self.stacked and self.privacy.guarantees),
            "updates are asked for one by one, and privacy protects their sum: choose a strategy "
            "that averages, such as strategy=fedadam",
        )
        beside = self.privacy.beside
        learnt = (name for name in self.names if name not in beside)
        given_by = {
            name: given.tensors[name.removeprefix(CONTROL_VARIATE_PREFIX)] for name in learnt
        }
        shapes = {name: value.shape[1:] for name, value in given_by.items()} | beside
        return TrainResult(None if self.stacked else UpdateSum.zeros(shapes, num_items))

    def claim(self, data: ClientData, round_: int) -> ClientData:
        """What a client says that it had."""
        return self.faults.tamper(self.attack.tamper(data), round_)

    def disguise(self, data: ClientData, num_items: int) -> ClientData:
        """What a client trains on; see `NoPrivacy.disguise`."""
        return self.privacy.disguise(data, num_items, self.chance)

    def send(
        self,
        trained: Trained,
        given: Versions,
        answer: TrainResult,
        round_: int,
        attempt: int,
        clip_norm: float,
    ) -> None:
        """Let a chunk of clients send what they learnt; the answer grows in place."""
        protected = self.privacy.apply(trained.updates, self.tables, clip_norm)
        if (weights := self.weigh(protected.weights)) is not protected.weights:
            protected = replace(protected, weights=weights)
        sent, num_bytes = self._compressed(protected, round_)
        answer.bytes_up += int(num_bytes.sum()) if self.names else 0
        cohort = trained.cohort
        late = self.faults.late(cohort.clients, cohort.num_examples, round_, attempt)
        sent = self._without(sent, late)
        sent = self.attack.poison(sent, given.of, _Own(trained).rows, self.tables, round_)
        arrived, odd = self.faults.spoil(sent, self.tables, round_, attempt)
        wrong = self.limits.violations(arrived, self.tables)
        answer.failures |= late | self._wrong(odd, trained) | wrong
        arrived = self._without(arrived, wrong)
        loss = _loss_of(arrived, trained)
        answer.replied += len(arrived.clients)
        if not self.privacy.guarantees:  # a loss without noise would tell what the noise hides
            answer.loss += float(loss @ arrived.weights)
        if answer.total is not None:
            self._add(arrived, answer.total, round_, attempt)
        else:
            answer.parts.append(arrived)
            answer.part_losses.append(loss)

    def _add(self, arrived: Updates, total: UpdateSum, round_: int, attempt: int) -> None:
        total.add(arrived, self.tables)
        self.privacy.add_noise(total, arrived.clients, round_, self.chance, attempt)
        if self.privacy.hides_rows:  # a dense message says of every row that it was touched
            total.row_weight[:] = total.weight

    def _without(self, updates: Updates, left_out: Collection[int]) -> Updates:
        """The updates of all clients but some."""
        if not left_out:
            return updates  # not a copy: a clean round costs nothing
        kept = np.flatnonzero(~np.isin(updates.clients, list(left_out)))
        return updates.select(kept, self.tables)

    def _wrong(self, odd: list[Odd], trained: Trained) -> dict[int, Failure]:
        """What is wrong with replies of another layout: something is, or they came again."""
        found = {}
        for reply in odd:
            shapes = self._shapes(trained, reply.client)
            if reply.again:
                found[reply.client] = _REPEATED
                continue
            violation = self.limits.violation(reply.tensors, reply.weight, shapes)
            found[reply.client] = violation or _OTHER_LAYOUT
        return found

    def _shapes(self, trained: Trained, client: int) -> dict[str, tuple[int, ...]]:
        """The shapes that a client's update should have: of a table its touched rows."""
        place = int(np.flatnonzero(trained.cohort.clients == client)[0])
        num_rows = int(np.diff(trained.touched.offsets)[place])
        return {
            name: (num_rows, *value.shape[1:]) if name in self.tables else value.shape[1:]
            for name, value in trained.updates.tensors.items()
        }

    def _compressed(self, updates: Updates, round_: int) -> tuple[Updates, NDArray[np.int64]]:
        """What the server reads of the clients' messages, and the bytes of each message."""
        if self.privacy.hides_rows:
            return updates, np.full(len(updates.clients), self.cost.whole)
        return compress_with_feedback(
            self.compression,
            updates,
            self.tables,
            lambda client: generator(self.seed, "compression", round_, client),
            self.owed,
        )


@dataclass(frozen=True, slots=True)
class _Own:
    """What clients have learnt of their own users."""

    trained: Trained

    def rows(self, name: str, client: int) -> NDArray[np.float32]:
        """The rows of a client's users in a table with a row per user."""
        cohort = self.trained.cohort
        place = int(np.flatnonzero(cohort.clients == client)[0])
        users = slice(*(int(cut) for cut in cohort.user_offsets[place : place + 2]))
        return self.trained.personal[name][users]


def _loss_of(arrived: Updates, trained: Trained) -> NDArray[np.float64]:
    """float64 (num_clients,): training losses in the order of the updates that arrived."""
    order = np.argsort(trained.cohort.clients)
    place = np.searchsorted(trained.cohort.clients, arrived.clients, sorter=order)
    return trained.loss[order[place]]

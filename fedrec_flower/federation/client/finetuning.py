"""Local steps before a client is evaluated, on a copy of its parameters that is then discarded.

Each client trains on its training data, without the local update rule of the strategy. The result
is in no message and does not influence the next round.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.types import IndexArray, Tensors
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Scorer
from fedrec_flower.federation.client.client_scoring import ClientScorer, ClientTensors
from fedrec_flower.federation.client.state_store import ClientStore
from fedrec_flower.models.base import Recommender
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import LocalTrainer, Trained


@dataclass(frozen=True, slots=True)
class Finetuning:
    """Trains copies of clients.

    Attributes:
        data: reader of the prepared folder.
        model: the recommender.
        trainer: trains clients, for the local epochs of finetuning.
        store: personal state of the clients.
    """

    data: Prepared
    model: Recommender
    trainer: LocalTrainer
    store: ClientStore

    def tune(
        self, clients: IndexArray, given: Versions, slot: str, round_: int
    ) -> Iterator[tuple[UserBatch, Scorer]]:
        """Train one chunk of clients after another; yield their users, and what scores them.

        Args:
            clients: int64 (num_clients,), client codes.
            given: the shared parameters; not modified.
            slot: slot of the personal parameters that training starts from.
            round_: the round, part of the address of every random draw.
        """
        members = [self.data.client(client) for client in clients.tolist()]
        personal = _Slot(self.store, slot)
        for trained in self.trainer.train(members, given, personal, round_):
            users = UserBatch.read(self.data, trained.cohort.clients)
            parameters = TunedParameters(users, self.model, self.store, slot, given, trained)
            yield users, ClientScorer(self.model, parameters)


@dataclass(frozen=True, slots=True)
class TunedParameters:
    """The parameters of a chunk of clients after training; implements `ParameterSource`.

    Attributes:
        users: the clients of the chunk, in its order.
        model: the recommender.
        store: personal state of the clients.
        slot: slot of the personal parameters that training started from.
        given: the shared parameters that training started from.
        trained: the result of training.
    """

    users: UserBatch
    model: Recommender
    store: ClientStore
    slot: str
    given: Versions
    trained: Trained

    def take(self, start: int, stop: int) -> ClientTensors:
        """Return parameters; see `ParameterSource.take`."""
        part = self.users.slice(start, stop)
        first_user, end_user = self.users.user_offsets[[start, stop]].tolist()
        first_row, end_row = self.trained.touched.offsets[[start, stop]].tolist()
        owner = np.repeat(
            np.arange(stop - start), np.diff(self.trained.touched.offsets[start : stop + 1])
        )
        touched = owner, self.trained.touched.rows[first_row:end_row]
        tuned: Tensors = {}
        for name, change in self.trained.updates.tensors.items():
            tuned[name] = self.given.whole(name, part.clients)
            if name in self.model.item_rows:
                tuned[name][touched] += change[first_row:end_row]
            else:
                tuned[name] += change[start:stop]
        stored = self.store.read(part, self.slot)
        for name, value in self.trained.personal.items():
            if name in self.model.user_rows:
                tuned[name] = value[first_user:end_user]
            elif name in self.model.item_rows:
                tuned[name] = stored[name]
                tuned[name][touched] = value[first_row:end_row]
            else:
                tuned[name] = value[start:stop]
        shared = ClientTensors.shared(self.given, part.clients)
        return shared.replaced(tuned, self.model.user_rows)


@dataclass(frozen=True, slots=True)
class _Slot:
    """Personal parameters of one slot, as `LocalTrainer.train` reads them."""

    store: ClientStore
    slot: str

    def gather(self, cohort: Cohort, touched: ActiveRows) -> Tensors:
        """Return the clients' personal parameters; see `ClientStore.gather`."""
        return self.store.gather(cohort, touched, self.slot)

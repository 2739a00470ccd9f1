"""Local steps before a client is evaluated, on a copy of its parameters that is then discarded.

Each client trains on its training data, without the local update rule of the strategy. The result
is in no message and does not influence the next round.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import ClientData
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
        model: the recommender.
        trainer: trains clients, for the local epochs of finetuning.
        store: personal state of the clients.
    """

    model: Recommender
    trainer: LocalTrainer
    store: ClientStore

    def tune(
        self, members: Sequence[ClientData], global_params: Versions, slot: str, round_: int
    ) -> Iterator[tuple[ClientData, Tensors]]:
        """Yield each client and its finetuned parameters by name, in full shapes.

        Args:
            members: the clients.
            global_params: the shared parameters; not modified.
            slot: slot of the personal parameters that training starts from.
            round_: the round, part of the address of every random draw.
        """
        by_code = {data.client: data for data in members}
        personal = _Slot(self.store, slot)
        for trained in self.trainer.train(members, global_params, personal, round_):
            for place, client in enumerate(trained.cohort.clients.tolist()):
                data = by_code[client]
                stored = self.store.load(data, slot)
                yield data, self._parameters(trained, place, global_params.of(client), stored)

    def _parameters(
        self, trained: Trained, place: int, global_params: Tensors, stored: Tensors
    ) -> Tensors:
        """Return the parameters of the client at a place of the trained cohort.

        Args:
            trained: the result of training.
            place: place of the client in the cohort.
            global_params: the shared parameters that the client started from.
            stored: its stored personal parameters.
        """
        start, stop = trained.touched.offsets[place : place + 2].tolist()
        rows = trained.touched.rows[start:stop]
        users = slice(*trained.cohort.user_offsets[place : place + 2].tolist())
        tuned: Tensors = {}
        for name, change in trained.updates.tensors.items():
            tuned[name] = global_params[name].copy()
            if name in self.model.item_rows:
                tuned[name][rows] += change[start:stop]
            else:
                tuned[name] += change[place]
        for name, value in trained.personal.items():
            if name in self.model.user_rows:
                tuned[name] = np.array(value[users])
            elif name in self.model.item_rows:
                tuned[name] = stored[name]
                tuned[name][rows] = value[start:stop]
            else:
                tuned[name] = np.array(value[place])
        return tuned


@dataclass(frozen=True, slots=True)
class _Slot:
    """Personal parameters of one slot, as `LocalTrainer.train` reads them."""

    store: ClientStore
    slot: str

    def gather(self, cohort: Cohort, touched: ActiveRows) -> Tensors:
        return self.store.gather(cohort, touched, self.slot)

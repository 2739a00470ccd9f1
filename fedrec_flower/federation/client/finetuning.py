"""A few local steps before a client is scored, taken on a copy and then forgotten.

Each client trains on its own training data and nothing else, as the run's clients train but for
what their strategy adds. No message carries what comes of it, and the next round knows nothing of
it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        model: says which parameters are tables.
        engine: trains clients; its local epochs are those of finetuning.
        store: personal parameters of the clients.
    """

    model: Recommender
    engine: LocalTrainer
    store: ClientStore

    def tune(
        self, members: Sequence[ClientData], given: Versions, slot: str, round_: int
    ) -> Iterator[tuple[ClientData, Tensors]]:
        """What each client then scores with, by name: whole parameters in place of others.

        Args:
            members: the clients.
            given: the shared parameters; left unchanged.
            slot: whose personal parameters they begin with.
            round_: the round, part of the address of every random draw.
        """
        by_code = {data.client: data for data in members}
        for trained in self.engine.train(members, given, _Slot(self.store, slot), round_):
            for place, client in enumerate(trained.cohort.clients.tolist()):
                data = by_code[client]
                yield data, self._own(trained, place, data, given.of(client), slot)

    def _own(
        self, trained: Trained, place: int, data: ClientData, given: Tensors, slot: str
    ) -> Tensors:
        cohort, touched = trained.cohort, trained.touched
        cut = slice(*touched.offsets[place : place + 2].tolist())
        users = slice(*cohort.user_offsets[place : place + 2].tolist())
        kept, own = self.store.load(data, slot), dict[str, NDArray[Any]]()
        for name, change in trained.updates.tensors.items():
            own[name] = given[name].copy()
            if name in self.model.item_rows:
                own[name][touched.rows[cut]] += change[cut]
            else:
                own[name] += change[place]
        for name, value in trained.personal.items():
            if name in self.model.user_rows:
                own[name] = np.array(value[users])
            elif name in self.model.item_rows:
                own[name] = kept[name]
                own[name][touched.rows[cut]] = value[cut]
            else:
                own[name] = np.array(value[place])
        return own


@dataclass(frozen=True, slots=True)
class _Slot:
    """Personal parameters of one slot: `training.engine.PersonalParameters`."""

    store: ClientStore
    slot: str

    def gather(self, cohort: Cohort, touched: ActiveRows) -> Tensors:
        return self.store.gather(cohort, touched, self.slot)

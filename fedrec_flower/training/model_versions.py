"""The shared parameters that a server sends: one version, or several."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.scatter import gather_subtract_rows
from fedrec_flower.core.types import Tensors
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort


@dataclass(frozen=True, slots=True)
class Versions:
    """Versions of the shared parameters, and the version that each client receives.

    Most federations have one version. Clustered clients, personal versions made on the server and
    asynchronous clients need several.

    Attributes:
        tensors: by name float32 (num_versions, ...).
        version_of: the version of each client, by client code; a client without an entry receives
            version 0.
    """

    tensors: Tensors
    version_of: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def single(cls, shared: Tensors) -> "Versions":
        """One version for all clients."""
        return cls({name: value[None] for name, value in shared.items()})

    @property
    def is_single(self) -> bool:
        """Whether all clients receive the same version."""
        return all(len(versions) == 1 for versions in self.tensors.values())

    def of(self, client: int) -> Tensors:
        """The parameters that one client receives, as views."""
        version = self.version_of.get(client, 0)
        return {name: value[version] for name, value in self.tensors.items()}

    def whole(self, name: str, clients: NDArray[np.int64]) -> NDArray[np.float32]:
        """One copy of a parameter per client: float32 (num_clients, ...)."""
        copies: NDArray[np.float32] = self.tensors[name].take(self.of_clients(clients), axis=0)
        return copies

    def rows(self, name: str, cohort: Cohort, touched: ActiveRows) -> NDArray[np.float32]:
        """The touched rows of a table, client after client: float32 (num_rows, ...)."""
        table = self.tensors[name]
        if len(table) == 1:
            first: NDArray[np.float32] = table[0].take(touched.rows, axis=0)
            return first
        version = np.repeat(self.of_clients(cohort.clients), np.diff(touched.offsets))
        rows: NDArray[np.float32] = table[version, touched.rows]
        return rows

    def subtract_rows(
        self, values: NDArray[np.float32], name: str, cohort: Cohort, touched: ActiveRows
    ) -> None:
        """Subtract a table's received rows from `values`, (num_rows, ...), in place."""
        if len(self.tensors[name]) == 1:
            gather_subtract_rows(values, self.tensors[name][0], touched.rows)
        else:
            values -= self.rows(name, cohort, touched)

    def of_clients(self, clients: NDArray[np.int64]) -> NDArray[np.int64]:
        """The version of each client, int64 (num_clients,)."""
        if not self.version_of:
            return np.zeros(len(clients), np.int64)
        return np.array([self.version_of.get(int(client), 0) for client in clients], np.int64)

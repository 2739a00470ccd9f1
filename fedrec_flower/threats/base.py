"""The interfaces of attacks: poisoning by malicious clients, and inference; and no attack."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from fedrec_flower.core.types import Float32Array, IndexArray, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.threats.observation import AttackedRun, AttackTarget

LOWER_BOUND = {"bound": "lower"}
"""Entry of the summary for every inference attack: a stronger attack may achieve more."""


class Attack:
    """An attack on a run. By default, all clients are honest."""

    @property
    def malicious_clients(self) -> IndexArray:
        """int64 (num_malicious,): codes of malicious clients, ascending; all others are honest."""
        return np.zeros(0, np.int64)

    def tamper(self, data: ClientData) -> ClientData:
        """The data that a client trains on; malicious clients replace their data."""
        return data

    def poison(
        self,
        updates: Updates,
        given: Callable[[int], Tensors],  # noqa: ARG002  # the arguments serve poisoning attacks
        own: Callable[[str, int], Float32Array],  # noqa: ARG002
        tables: Collection[str],  # noqa: ARG002
        round_: int,  # noqa: ARG002
    ) -> Updates:
        """The updates that the clients send; malicious clients replace theirs.

        Args:
            updates: updates of honest clients, after the privacy mechanism; not changed.
            given: returns the shared parameters, full shapes, that a client trained from.
            own: returns the rows of a client's users after training, of a table with a row per
                user; arguments: name of the table, code of the client.
            tables: names of the parameters with a row per item.
            round_: the round.
        """
        return updates


class NoAttack(Attack):
    """`attack=none`: all clients are honest, and no observer infers private data."""


class InferenceAttack(Attack, ABC):
    """An attack that infers private data from a finished run; all clients are honest."""

    @abstractmethod
    def check(self, run: AttackedRun) -> None:
        """Check that the attack is possible on a run.

        Raises:
            ConfigError: gives the reason and the fix.
        """

    @abstractmethod
    def infer(self, target: AttackTarget) -> dict[str, Any]:
        """The results of the attack, for the summary; the run is not changed.

        Args:
            target: the finished run.
        """

    @abstractmethod
    def describe(self, figures: Mapping[str, Any]) -> str:
        """One sentence about the results of `infer`."""

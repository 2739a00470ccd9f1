"""The interface of attacks, and the run without an attack."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.data.prepared import ClientData, Prepared
from fedrec_flower.threats.observation import Circumstances, Scene

LOWER_BOUND = {"bound": "lower"}
"""Entry of the summary for every inference attack: a stronger attack may achieve more."""


class NoAttack:
    """`attack=none`: all clients are honest, and no observer infers private data."""

    @property
    def liars(self) -> NDArray[np.int64]:
        """int64 (num_malicious,): codes of malicious clients, ascending; all others are honest."""
        return np.zeros(0, np.int64)

    def tamper(self, data: ClientData) -> ClientData:
        """The data that a client trains on; malicious clients replace their data."""
        return data

    def poison(
        self,
        updates: Updates,
        given: Callable[[int], Tensors],
        own: Callable[[str, int], NDArray[np.float32]],
        tables: Collection[str],
        round_: int,
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
        del given, own, tables, round_
        return updates

    def measured(self, data: Prepared, recommended: NDArray[np.int32]) -> dict[str, Any]:
        """The effect of a poisoning attack, for the summary.

        Args:
            data: the prepared data.
            recommended: int32 (num_users, k), each user's best unseen items, best first; -1 if a
                user has fewer.
        """
        del data, recommended
        return {}

    def check(self, run: Circumstances) -> None:
        """Check that the attack is possible on a run.

        Raises:
            ConfigError: gives the reason and the fix.
        """
        del run

    def spied(self, scene: Scene) -> dict[str, Any]:
        """The results of an inference attack, for the summary; the run is not changed.

        Args:
            scene: the finished run.
        """
        del scene
        return {}

    def said(self, figures: Mapping[str, Any]) -> str:
        """One sentence about the results of `spied`."""
        del figures
        return ""

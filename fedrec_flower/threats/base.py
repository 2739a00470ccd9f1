"""Honest clients that nobody spies on, and the shape of every attack."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.data.prepared import ClientData, Prepared
from fedrec_flower.threats.observation import Circumstances, Scene

LOWER_BOUND = {"bound": "lower"}
"""Beside the figures of every attack in a summary: a stronger attack may achieve more."""


class NoAttack:
    """`attack=none`: clients are honest, and nobody looks closer than he must."""

    @property
    def liars(self) -> NDArray[np.int64]:
        """int64 (num_liars,): codes of malicious clients, ascending; all others are honest."""
        return np.zeros(0, np.int64)

    def tamper(self, data: ClientData) -> ClientData:
        """What a client claims to have had: malicious ones have other tastes than their users."""
        return data

    def poison(
        self,
        updates: Updates,
        given: Callable[[int], Tensors],
        own: Callable[[str, int], NDArray[np.float32]],
        tables: Collection[str],
        round_: int,
    ) -> Updates:
        """What the clients send; malicious ones send what they like, not what they learnt.

        Args:
            updates: what honest clients send, after everything that protects them; left unchanged.
            given: the shared parameters, full shapes, that a client trained from.
            own: of a table with a row per user, by its name, the rows of a client's users after
                they have trained.
            tables: names of the parameters with a row per item.
            round_: the round.
        """
        del given, own, tables, round_
        return updates

    def measured(self, data: Prepared, recommended: NDArray[np.int32]) -> dict[str, Any]:
        """What a poisoning achieved, for the summary.

        Args:
            data: the prepared data.
            recommended: int32 (num_users, k), each user's best unseen items, best first; -1 where
                a user has fewer.
        """
        del data, recommended
        return {}

    def check(self, run: Circumstances) -> None:
        """Refuse a run in which there is nothing to spy on; ConfigError with the mend."""
        del run

    def spied(self, scene: Scene) -> dict[str, Any]:
        """What a curious onlooker found out, for the summary; nothing of the run is changed.

        Args:
            scene: the run that is over.
        """
        del scene
        return {}

    def said(self, figures: Mapping[str, Any]) -> str:
        """One sentence on what `spied` gave."""
        del figures
        return ""

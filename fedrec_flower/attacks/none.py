"""Honest clients that nobody spies on, and the shape of every attack."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.updates import Tensors, Updates
from fedrec_flower.prepared import ClientData, Prepared


class NoAttack:
    """`attack=none`: clients are honest, and nobody looks closer than he must."""

    def tamper(self, data: ClientData) -> ClientData:
        """What a client claims to have had: malicious ones have other tastes than their users."""
        return data

    def poison(
        self,
        updates: Updates,
        given: Callable[[int], Tensors],
        tables: Collection[str],
        round_: int,
    ) -> Updates:
        """What the clients send; malicious ones send what they like, not what they learnt.

        Args:
            updates: what honest clients send, after everything that protects them.
            given: the shared parameters, full shapes, that a client trained from.
            tables: names of the parameters with a row per item.
            round_: the round.
        """
        del given, tables, round_
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

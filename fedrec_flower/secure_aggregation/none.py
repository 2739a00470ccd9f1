"""No secure aggregation: what a node sends is seen by the server as it is."""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class NoSecureAggregation:
    """`secure_aggregation=none`: one exchange a round."""

    @property
    def clip_range(self) -> float:
        """See `SecAgg.clip_range`; nothing is clipped."""
        return inf

    def most_rounded(self, cohort: int) -> float:
        """See `SecAgg.most_rounded`; nothing is."""
        del cohort
        return 0.0

    def weighed(self, examples: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `SecAgg.weighed`; as many as the interactions."""
        return examples

    def checkpoint_every(self, asked: int | None) -> int | None:
        """See `SecAgg.checkpoint_every`; as asked."""
        return asked

    def check(self, num_nodes: int, clients_per_round: int) -> None:
        """See `SecAgg.check`; anything goes."""
        del num_nodes, clients_per_round

    def check_strategy(self, strategy: str, *, shares: bool, stacked: bool) -> None:
        """See `SecAgg.check_strategy`; anything goes."""
        del strategy, shares, stacked

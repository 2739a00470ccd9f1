"""The server's side of privacy: whom to ask, what to release, what that has cost."""

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import UpdateSum

State = dict[str, NDArray[Any]]


class Curator:
    """Of `privacy=none`: releases the sum as it is, and promises nothing."""

    @property
    def noisy(self) -> bool:
        """Whether a release hides even that nobody took part, so that none may be left out."""
        return False

    @property
    def hides_losses(self) -> bool:
        """Whether nodes keep training losses to themselves, which no mechanism here protects."""
        return False

    @property
    def beside(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what travels beside an update."""
        return {}

    @property
    def is_spent(self) -> bool:
        """Whether another release would cost more than the budget allows."""
        return False

    @property
    def clip_norm(self) -> float:
        """What clients are told to bound their updates by in this round."""
        return inf

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in each value of a released sum."""
        return 0.0

    @property
    def flip_rate(self) -> float:
        """The probability that a user's answer about an item was flipped."""
        return 0.0

    def cohort(self, sampled: NDArray[np.int64], round_: int) -> NDArray[np.int64]:
        """Whom to ask: the clients sampled, a fixed number of them, or others.

        Args:
            sampled: int64 (clients_per_round,), ascending client codes.
            round_: the round.
        """
        del round_
        return sampled

    def check_masked(self, num_groups: int, num_clients: int, least: int) -> None:
        """Refuse masks of which the cohort decides whether they let a sum out.

        Args:
            num_groups: groups of nodes whose sampled clients are counted.
            num_clients: clients that the nodes of a group host at least.
            least: sampled clients of a group; of fewer, no sum comes out.

        Raises:
            ConfigError: names the values and the mend.
        """
        del num_groups, num_clients, least

    def release(
        self, total: UpdateSum, shapes: Mapping[str, tuple[int, ...]], round_: int
    ) -> UpdateSum:
        """What may be used of the sum over a cohort; everything else follows from it.

        Args:
            total: the sum; without tensors if nobody took part. Left as it is.
            shapes: of every tensor that a client sends.
            round_: the round.
        """
        del shapes, round_
        return total

    def figures(self) -> dict[str, float]:
        """What rounds.csv says of the round just released."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What summary.json says of the run."""
        return {}

    def state(self) -> State:
        """What must survive an interruption, for a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state` gave."""
        del state

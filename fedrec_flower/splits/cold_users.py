"""Cold users: a share of the users is held out, so that the model meets them untrained.

Of each held-out user the last interaction is test, as in `leave_one_out`: the same item against the
same candidates, so the two figures show what not knowing a user costs. What stands before it is
validation. Nobody else is evaluated. A held-out user trains on nothing, unless `num_support` lets
them keep their first few interactions: then they are beginners instead of strangers, and train on
these as everybody does on theirs.

Source: Schein et al. 2002, "Methods and metrics for cold-start recommendations"; the last
interaction as in He et al. 2017, section 4.1.
"""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.errors import DataError, require
from fedrec_flower.interactions import Interactions, Split
from fedrec_flower.seeding import generator
from fedrec_flower.splits import Negatives
from fedrec_flower.splits.fractions import num_held_out
from fedrec_flower.splits.histories import cut, num_later, require_histories
from fedrec_flower.splits.ordering import Ties, order_in_time

_HELD_OUT = 2  # one interaction for validation, one for test
_LEAST_USERS = 2  # one to train on, one to hold out


@dataclass(frozen=True, slots=True)
class ColdUsers:
    """Hold out users, drawn at random.

    Attributes:
        user_fraction: of all users, rounded down, at least one user; above 0 and below 1.
        num_support: how many of a held-out user's first interactions stand in train.
        ties: what orders interactions at the same time: "hash" or "file_order" (the later row of
            the interactions is the later one).
        negatives: the pool of training negatives; "legacy" is leaky.

    Raises:
        ConfigError: if the fraction or the number is impossible.
    """

    user_fraction: float
    num_support: int
    ties: Ties
    negatives: Negatives

    def __post_init__(self) -> None:
        share, support = self.user_fraction, self.num_support
        require(0 < share < 1, f"split.user_fraction must lie between 0 and 1: {share}")
        require(support >= 0, f"split.num_support must not be negative: {support}")

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction; the same seed holds out the same users in any file order.

        Raises:
            DataError: if there are no timestamps, a user has too few interactions, or there is
                but one user.
        """
        order = order_in_time(interactions, self.ties)
        require_histories(interactions, self.num_support + _HELD_OUT)
        num_users = interactions.num_users
        if num_users < _LEAST_USERS:
            raise DataError(
                f"the dataset {interactions.name} has {num_users} users and this split needs "
                f"{_LEAST_USERS}: choose split=leave_one_out"
            )
        share = num_held_out(np.array([num_users]), self.user_fraction)[0]
        num_cold = min(share, num_users - 1)  # somebody must train
        is_cold = generator(seed, "split").permutation(num_users) < num_cold
        lengths = np.bincount(interactions.user)
        held_out = np.where(is_cold, lengths - self.num_support, 0)[interactions.user]
        last = is_cold[interactions.user].astype(np.int64)
        return cut(num_later(interactions.user, order), held_out - last, last)

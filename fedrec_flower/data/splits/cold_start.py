"""Cold items: a share of the catalogue is held out with everything that anybody did with it.

Who trained on such a split has seen no interaction with a held-out item, so only what is known of
the item itself can find it. The other items remain candidates: a held-out item ranks among all that
its user has not in train, popular ones included. It is drawn as a training negative like any other
that the user has not in train; were it spared, a model could learn
that "never pushed down" means "held out".

Source: Schein et al. 2002, "Methods and metrics for cold-start recommendations", section 4.

Cold users: a share of the users is held out, so that the model meets them untrained.

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

from fedrec_flower.core.errors import DataError, require
from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Interactions, Part, Split
from fedrec_flower.data.splits.base import (
    Negatives,
    Ties,
    check_fractions,
    cut,
    least_history,
    num_held_out,
    num_later,
    order_in_time,
    require_histories,
)


@dataclass(frozen=True, slots=True)
class ColdItems:
    """Hold out items, drawn at random from those that anybody met.

    Attributes:
        validation_fraction: of these items, rounded down, at least one item; 0 for no validation
            part.
        test_fraction: of these items, rounded down, at least one item; no item is both.
        negatives: the pool of training negatives; "legacy" is leaky.

    Raises:
        ConfigError: if the fractions are impossible.
    """

    validation_fraction: float
    test_fraction: float
    negatives: Negatives

    def __post_init__(self) -> None:
        check_fractions(self.validation_fraction, self.test_fraction)

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction as its item; the same seed gives the same in any file order.

        Raises:
            DataError: if there are too few items for every part.
        """
        met = np.unique(interactions.item)
        needed = least_history(self.validation_fraction, self.test_fraction)
        if len(met) < needed:
            raise DataError(
                f"the dataset {interactions.name} has interactions with {len(met)} items and this "
                f"split needs {needed}: lower split.test_fraction or split.validation_fraction"
            )
        drawn = generator(seed, "split").permutation(met)
        sizes = [self.test_fraction, self.validation_fraction]
        cuts = np.cumsum([num_held_out(np.array([len(met)]), share)[0] for share in sizes])
        test, validation, _ = np.split(drawn, cuts)
        part_of_item = np.full(interactions.num_items, Part.TRAIN, np.int8)
        part_of_item[validation], part_of_item[test] = Part.VALIDATION, Part.TEST
        return Split(part_of_item[interactions.item])


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

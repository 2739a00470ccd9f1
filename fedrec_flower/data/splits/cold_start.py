"""Cold-start splits: items or users without training interactions.

Cold items: a share of the items is held out with all their interactions. A model trained on such a
split has seen no interaction with a held-out item, so only the item's attributes can rank it. All
other items remain candidates: a held-out item is ranked among all items that its user does not have
in train, popular ones included. A held-out item is also drawn as a training negative like any other
item that the user does not have in train. If it were excluded, a model could learn that "never a
negative" means "held out".

Cold users: a share of the users is held out. The last interaction of each held-out user is test, as
in `leave_one_out`: the same item with the same candidates, so the two figures show the cost of an
unknown user. The interactions before it are validation. Other users are not evaluated. A held-out
user has no training data, unless `num_support` keeps its first few interactions in train (few-shot
users), which are trained on like those of any user.

Source: Schein et al. 2002, "Methods and metrics for cold-start recommendations", section 4; the
last interaction of a user as in He et al. 2017, section 4.1.
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
    """Hold out items, drawn at random from the items with interactions.

    Attributes:
        validation_fraction: of these items, rounded down, at least one item; 0 for no validation
            part.
        test_fraction: of these items, rounded down, at least one item; the parts are disjoint.
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
        """Label each interaction by its item. The labels do not depend on the file order.

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
        num_support: number of a held-out user's first interactions that stay in train.
        ties: order of interactions at equal times: "hash" or "file_order" (the later row is the
            later interaction).
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
        """Label each interaction. The same seed holds out the same users in any file order.

        Raises:
            DataError: if there are no timestamps, a user has too few interactions, or there is only
                one user.
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
        num_cold = min(share, num_users - 1)  # at least one user trains
        is_cold = generator(seed, "split").permutation(num_users) < num_cold
        lengths = np.bincount(interactions.user)
        held_out = np.where(is_cold, lengths - self.num_support, 0)[interactions.user]
        last = is_cold[interactions.user].astype(np.int64)
        return cut(num_later(interactions.user, order), held_out - last, last)

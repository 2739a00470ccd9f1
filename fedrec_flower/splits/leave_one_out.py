"""Leave-one-out: each user's last interaction is test, the one before is validation.

Source: He et al. 2017, "Neural collaborative filtering", section 4.1. Ties in time (415 of the 943
users of MovieLens-100K tie at their last timestamp) break by a fixed hash, see `hashing`.
"""

from dataclasses import dataclass

from fedrec_flower.interactions import Interactions, Split
from fedrec_flower.splits import Negatives
from fedrec_flower.splits.histories import cut, num_later, require_histories
from fedrec_flower.splits.ordering import Ties, order_in_time

_NEEDED = 3  # one to train on, one for validation, one for test


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Hold out the last two interactions of every user.

    Attributes:
        ties: what orders interactions at the same time: "hash" or "file_order" (the later row of
            the interactions is the later one).
        negatives: the pool of training negatives; "legacy" is leaky.
    """

    ties: Ties
    negatives: Negatives

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction; `seed` is unused, nothing is drawn.

        Raises:
            DataError: if there are no timestamps, or a user has fewer than three interactions.
        """
        del seed
        order = order_in_time(interactions, self.ties)
        require_histories(interactions, _NEEDED)
        later = num_later(interactions.user, order)
        return cut(later, num_validation=1, num_test=1)

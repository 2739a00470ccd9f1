"""Cold items: a share of the catalogue is held out with everything that anybody did with it.

Who trained on such a split has seen no interaction with a held-out item, so only what is known of
the item itself can find it. The other items remain candidates: a held-out item ranks among all that
its user has not in train, popular ones included. It is drawn as a training negative like any other
that the user has not in train; were it spared, a model could learn
that "never pushed down" means "held out".

Source: Schein et al. 2002, "Methods and metrics for cold-start recommendations", section 4.
"""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.errors import DataError
from fedrec_flower.interactions import Interactions, Part, Split
from fedrec_flower.seeding import generator
from fedrec_flower.splits import Negatives
from fedrec_flower.splits.fractions import check_fractions, least_history, num_held_out


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

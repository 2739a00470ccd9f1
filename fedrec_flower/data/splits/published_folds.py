"""Cross-validation folds by the order of the original file, such as u1 to u5 of MovieLens-100K."""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Interactions, Part, Split
from fedrec_flower.data.splits.base import (
    Negatives,
    check_fractions,
    num_held_out,
    order_at_random,
    require_length,
)

_LEAST_PER_FOLD = 3  # interactions, so that every part has some


@dataclass(frozen=True, slots=True)
class FileFolds:
    """One contiguous block of the file is test. Validation is drawn at random from the rest.

    Of n interactions in file order, the test part of fold k of m is [(k - 1) * n // m,
    k * n // m). For MovieLens-100K these are the published u1 to u5.

    Attributes:
        fold: the test fold, counted from one.
        num_folds: number of folds.
        validation_fraction: of the whole file, rounded down, at least one interaction.
        negatives: the pool of training negatives; "legacy" is leaky.

    Raises:
        ConfigError: if the fold does not exist, or no training data would be left.
    """

    fold: int
    num_folds: int
    validation_fraction: float
    negatives: Negatives

    def __post_init__(self) -> None:
        require(self.num_folds > 1, f"split.num_folds must be at least 2: {self.num_folds}")
        if not 1 <= self.fold <= self.num_folds:
            raise ConfigError(
                f"split.fold={self.fold} does not exist: choose between 1 and {self.num_folds}"
            )
        check_fractions(self.validation_fraction, 1 / self.num_folds)

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction. The seed changes only the validation part.

        Raises:
            DataError: if the data set has too few interactions for all parts.
        """
        count = len(interactions)
        require_length(interactions, _LEAST_PER_FOLD * self.num_folds)
        part = np.full(count, Part.TRAIN, dtype=np.int8)
        first, end = ((self.fold - back) * count // self.num_folds for back in (1, 0))
        part[first:end] = Part.TEST
        whole = np.zeros(count, np.int32)
        order = order_at_random(interactions, whole, generator(seed, "split"))
        wanted = int(num_held_out(np.array([count]), self.validation_fraction)[0])
        part[order[part[order] == Part.TRAIN][:wanted]] = Part.VALIDATION
        return Split(part)

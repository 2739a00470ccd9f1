"""Global temporal split: train on the past of all users, test on the future of all users.

Source: Ji et al. 2023, "A critical study on data leakage in recommender system offline
evaluation": every other split trains on later interactions of other users.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import DataError
from fedrec_flower.data.interactions import Interactions, Part, Split
from fedrec_flower.data.splits.base import (
    Negatives,
    check_fractions,
    least_history,
    num_held_out,
    require_length,
    require_times,
)


@dataclass(frozen=True, slots=True)
class Temporal:
    """Cut at the times after which the given fractions of all interactions lie.

    Interactions at the time of a cut belong to the later part, so a part may be slightly larger
    than configured. Users with interactions in only one part stay.

    Attributes:
        validation_fraction: of all interactions, before the test part; 0 for no validation part.
        test_fraction: of all interactions, the latest ones.
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
        """Label each interaction. `seed` is unused: no random draw.

        Raises:
            DataError: if there are no timestamps, or so few distinct ones that a part is empty.
        """
        del seed
        times = require_times(interactions)
        require_length(interactions, least_history(self.validation_fraction, self.test_fraction))
        validation_start, test_start = self._starts(times)
        part = np.full(len(times), Part.TRAIN, dtype=np.int8)
        part[times >= validation_start] = Part.VALIDATION
        part[times >= test_start] = Part.TEST
        self._require_parts(part, times)
        return Split(part)

    def _starts(self, times: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the start times of validation and test, int64 (2,)."""
        length = np.array([len(times)], dtype=np.int64)
        test = length - num_held_out(length, self.test_fraction)
        validation = test - num_held_out(length, self.validation_fraction)
        starts: NDArray[np.int64] = np.sort(times)[np.concatenate([validation, test])]
        return starts

    def _require_parts(self, part: NDArray[np.int8], times: NDArray[np.int64]) -> None:
        """Check that no configured part is empty."""
        train, validation, _ = np.bincount(part, minlength=len(Part))
        if train == 0 or (validation == 0 and self.validation_fraction > 0):
            raise DataError(
                f"{len(times)} interactions at {len(np.unique(times))} distinct times leave a part "
                "of the temporal split empty: change split.validation_fraction and "
                "split.test_fraction, or use split=random"
            )

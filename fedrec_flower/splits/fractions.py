"""Splits by fraction: what is possible, and how many interactions a fraction is."""

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import ConfigError

_LEAST_TRAIN_FRACTION = 1e-6  # leaves room for the rounding of num_held_out
_LONGEST_HISTORY = 2**40


def check_fractions(validation: float, test: float) -> None:
    """Check that both are fractions and leave something to train on.

    Raises:
        ConfigError: if they are impossible, NaN included.
    """
    if not (validation >= 0 and test > 0 and validation + test <= 1 - _LEAST_TRAIN_FRACTION):
        raise ConfigError(
            f"split.validation_fraction={validation} and split.test_fraction={test} are "
            "impossible: test must be above 0, validation at least 0, their sum below 1"
        )


def num_held_out(lengths: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """How many interactions a fraction of each history is, rounded down but at least one.

    Args:
        lengths: int64 (num_histories,), how many interactions each history has.
        fraction: in [0, 1); 0 holds nothing out.

    Returns:
        int64 (num_histories,).
    """
    if fraction == 0:
        return np.zeros_like(lengths)
    # 0.29 * 100 is 28.999999999999996 in floating point, and means 29.
    whole: NDArray[np.float64] = np.floor(lengths * fraction + 1e-9)
    return np.maximum(whole.astype(np.int64), 1)


def least_history(validation: float, test: float) -> int:
    """The length from which on a history has at least one interaction in every part asked for.

    Args:
        validation: fraction, in [0, 1).
        test: fraction, in (0, 1).

    Returns:
        The number of interactions; 3 for ordinary fractions.
    """

    def leaves_train(length: int) -> bool:
        lengths = np.array([length], dtype=np.int64)
        held_out = num_held_out(lengths, validation) + num_held_out(lengths, test)
        return bool(held_out[0] < length)

    # A history that is long enough stays so when it grows, so bisection finds the first.
    return bisect_left(range(_LONGEST_HISTORY), x=True, key=leaves_train)

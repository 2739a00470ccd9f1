"""Values of budgets and bounds that cannot be, for every mechanism alike."""

from math import isinf

from fedrec_flower.aggregation import HUGE
from fedrec_flower.errors import require
from fedrec_flower.privacy.accounting import LEAST_DELTA, epsilon_of


def check_budget(
    noise_multiplier: float | None, target_epsilon: float | None, delta: float | None
) -> None:
    """Refuse a budget that is given twice, not at all, or not in range.

    Raises:
        ConfigError: names the value and what to give.
    """
    require(
        (noise_multiplier is None) != (target_epsilon is None),
        f"privacy.noise_multiplier={noise_multiplier} and target_epsilon={target_epsilon} say the "
        "same twice or nothing at all: give one of them and set the other to null",
    )
    if noise_multiplier is not None:
        at_least = noise_multiplier >= 0 and not isinf(noise_multiplier)
        require(at_least, f"privacy.noise_multiplier must be finite, 0 or more: {noise_multiplier}")
    if target_epsilon is not None:
        require(target_epsilon > 0, f"privacy.target_epsilon must be above 0: {target_epsilon}")
    if delta is not None:
        require(0 < delta < 1, f"privacy.delta must be between 0 and 1: {delta}")
        require(
            delta >= LEAST_DELTA,
            f"privacy.delta={delta:g} is too small to be computed with: give {LEAST_DELTA:g} or "
            "more",
        )


def check_cost(noise_multiplier: float, delta: float, releases: int) -> None:
    """Refuse noise so small that its epsilon exceeds all numbers.

    Args:
        noise_multiplier: standard deviation over sensitivity; 0 for no noise, and no promise.
        delta: see `accounting.epsilon_of`.
        releases: how many there will be.

    Raises:
        ConfigError: names the value and what to give.
    """
    if noise_multiplier:
        epsilon = epsilon_of(((noise_multiplier, 1.0, max(releases, 1)),), delta)
        require(
            not isinf(epsilon),
            f"privacy.noise_multiplier={noise_multiplier:g} is too small for any guarantee: raise "
            "it, or set it to 0 for no noise",
        )


def check_clipping(
    clip_norm: float, noise_multiplier: float | None, target_epsilon: float | None
) -> None:
    """Refuse a bound that bounds nothing while there is noise to be scaled by it.

    Raises:
        ConfigError: names the value and what to give.
    """
    require(clip_norm > 0, f"privacy.clip_norm must be above 0: {clip_norm}")
    noise = noise_multiplier if target_epsilon is None else not isinf(target_epsilon)
    # A longer update would be left out as too large, which tells of the client's data.
    require(
        isinf(clip_norm) or clip_norm <= HUGE,
        f"privacy.clip_norm={clip_norm:g} is above what any client may send: give {HUGE:g} or less",
    )
    require(
        not (isinf(clip_norm) and noise),
        "privacy.clip_norm=inf bounds nothing, so no noise can hide a client: give a number, or "
        "set noise_multiplier=0",
    )

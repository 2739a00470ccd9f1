"""What a mechanism must know of a run before it can promise anything, and what it refuses.

Values of budgets and bounds that cannot be, for every mechanism alike.
"""

from dataclasses import dataclass
from math import isinf
from typing import Literal

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.updates import HUGE
from fedrec_flower.privacy.accounting import LEAST_DELTA, epsilon_of

Unit = Literal["user", "client"]


@dataclass(frozen=True, slots=True)
class Published:
    """What a run publishes beside what its mechanism protects.

    Attributes:
        metrics: whether clients' held-out items are scored, and the results published.
        choice: whether validation chooses the round that is released, or when the run ends.
        catalogue: whether the ids of the items are those that clients' interactions name.
        seed: whether clients' draws and the noise follow from the seed of the configuration.
    """

    metrics: bool
    choice: bool
    catalogue: bool
    seed: bool


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The run that a mechanism is to protect.

    Attributes:
        num_clients: clients of the federation.
        most_users: users of the client that holds most.
        clients_per_round: size of a cohort.
        num_rounds: rounds of training.
        model: its name, for messages.
        statistics: whether clients tell statistics, once or several times, instead of updates.
        bounded_statistics: whether the length of one user's statistics is known.
        retries: whether a round may be tried again with a fresh cohort.
        clip_range: no value of a client's contribution is let through beyond it.
        rounding: how much longer, in L2 norm, rounding can make what one client changes of a sum.
        published: what else is published.
    """

    num_clients: int
    most_users: int
    clients_per_round: int
    num_rounds: int
    model: str
    statistics: bool
    bounded_statistics: bool
    retries: bool
    clip_range: float
    rounding: float
    published: Published

    @property
    def rate(self) -> float:
        """The share of the clients in a cohort."""
        return self.clients_per_round / self.num_clients


@dataclass(frozen=True, slots=True)
class Way:
    """How a strategy goes from what clients send to new parameters.

    Attributes:
        strategy: its name, for messages.
        shares: whether anything travels between clients.
        by_sum_alone: whether the server moves by the plain sum of a cohort's updates alone.
        by_row: whether it divides a row by the clients that touched it.
    """

    strategy: str
    shares: bool
    by_sum_alone: bool
    by_row: bool


def require_unit(unit: Unit, run: Circumstances) -> None:
    """Refuse to promise users what only holds for clients.

    Raises:
        ConfigError: if a client holds several users and users are to be protected.
    """
    require(
        unit == "client" or run.most_users == 1,
        f"privacy.unit=user is not what clipping by client protects, for a client holds up to "
        f"{run.most_users} users: choose partition=user, or say privacy.unit=client, which "
        "protects a client's users together",
    )


def require_sum_alone(way: Way) -> None:
    """Refuse every way from updates to parameters but the plain sum over a cohort.

    Raises:
        ConfigError: names what stands in the way, why, and the mend.
    """
    require(
        way.shares,
        f"{way.strategy} sends nothing that privacy could protect: choose privacy=none",
    )
    require(
        way.by_sum_alone,
        f"{way.strategy} uses more of the clients than the sum of their updates, which "
        "the mechanism does not cover: choose one that averages, such as strategy=fedadam",
    )
    require(
        not way.by_row,
        "privacy hides who had an item, but strategy.aggregation=touched_clients divides by their "
        "number: set strategy.aggregation=all_clients",
    )


def require_no_retries(run: Circumstances) -> None:
    """Refuse fresh cohorts for a round that was accounted for once.

    Raises:
        ConfigError: says what to set.
    """
    require(
        not run.retries,
        "a round that is tried again samples a cohort that is not accounted for: set "
        "min_completion=0",
    )


def require_range(clip_norm: float, run: Circumstances) -> None:
    """Refuse to clip a node's sum by value: the bound would hang on who else is in it.

    Raises:
        ConfigError: says what to raise.
    """
    # A user has an item or not. The counts of several users are bounded by their norm alone.
    largest = min(clip_norm, 1.0) if run.statistics and run.most_users == 1 else clip_norm
    require(
        largest <= run.clip_range,
        f"privacy.clip_norm={clip_norm:g} lets values through that secure aggregation would clip "
        f"once more: set secure_aggregation.clip_range={largest:g} or above",
    )


def require_statistics(run: Circumstances) -> None:
    """Refuse exact models whose statistics have no known length.

    Raises:
        ConfigError: names the model.
    """
    if run.statistics and not run.bounded_statistics:
        raise ConfigError(
            f"the statistics of one user have no known bound under model={run.model}: choose "
            "popularity, itemknn or ease, or a model that is trained by gradients"
        )


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

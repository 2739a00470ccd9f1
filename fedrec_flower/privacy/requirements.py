"""Facts of a run on which a guarantee depends, and the requirements that mechanisms check."""

from dataclasses import dataclass
from math import isinf
from typing import Literal

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.updates import HUGE
from fedrec_flower.privacy.accounting import LEAST_DELTA, epsilon_of

Unit = Literal["user", "client"]


@dataclass(frozen=True, slots=True)
class Published:
    """Values that a run publishes and that its privacy mechanism does not protect.

    Attributes:
        metrics: whether clients' held-out items are scored and the results published.
        choice: whether validation chooses the released round, or the end of the run.
        catalogue: whether the catalogue is made from the item ids in clients' interactions.
        seed: whether clients' draws and the noise are derived from the seed of the configuration.
    """

    metrics: bool
    choice: bool
    catalogue: bool
    seed: bool


@dataclass(frozen=True, slots=True)
class RunFacts:
    """Facts of the run that a mechanism protects.

    Attributes:
        num_clients: number of clients of the federation.
        max_users: the largest number of users that one client holds.
        clients_per_round: size of a cohort.
        num_rounds: number of training rounds.
        model: name of the model, for messages.
        statistics: whether clients send statistics, once or several times, instead of updates.
        bounded_statistics: whether the norm of one user's statistics has a known bound.
        retries: whether a round may be repeated with a new cohort.
        clip_range: secure aggregation clips each value of a contribution to this magnitude.
        rounding: the largest L2 norm that rounding can add to one client's change of a sum.
        published: values that are published without protection.
    """

    num_clients: int
    max_users: int
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
        """The sampling rate: clients_per_round / num_clients."""
        return self.clients_per_round / self.num_clients


@dataclass(frozen=True, slots=True)
class AggregationFacts:
    """Facts of how a strategy computes new parameters from the clients' messages.

    Attributes:
        strategy: name of the strategy, for messages.
        shares: whether clients share parameters through the server.
        by_sum_alone: whether the server uses only the plain sum of a cohort's updates.
        by_row: whether a row is divided by the number of clients that touched it.
    """

    strategy: str
    shares: bool
    by_sum_alone: bool
    by_row: bool


def require_unit(unit: Unit, run: RunFacts) -> None:
    """Check that the protected unit is the unit that is clipped.

    Raises:
        ConfigError: if users are to be protected and a client holds several of them.
    """
    require(
        unit == "client" or run.max_users == 1,
        "privacy.unit=user is not protected, because clipping is by client and a client holds up "
        f"to {run.max_users} users: choose partition=user, or set privacy.unit=client, which "
        "protects a client's users together",
    )


def require_sum_alone(aggregation: AggregationFacts) -> None:
    """Check that the server uses only the plain sum over a cohort.

    Raises:
        ConfigError: names the conflicting setting, the reason and the fix.
    """
    require(
        aggregation.shares,
        f"{aggregation.strategy} sends no values that privacy could protect: choose privacy=none",
    )
    require(
        aggregation.by_sum_alone,
        f"{aggregation.strategy} uses more of the clients than the sum of their updates, and the "
        "mechanism does not cover that: choose a strategy that averages, such as strategy=fedadam",
    )
    require(
        not aggregation.by_row,
        "privacy hides which clients have an item, but strategy.aggregation=touched_clients "
        "divides by their number: set strategy.aggregation=all_clients",
    )


def require_no_retries(run: RunFacts) -> None:
    """Check that no round is repeated with a new cohort, because it was accounted for once.

    Raises:
        ConfigError: names the setting to change.
    """
    require(
        not run.retries,
        "a repeated round samples a cohort that is not accounted for: set min_completion=0",
    )


def require_range(clip_norm: float, run: RunFacts) -> None:
    """Check that a node's sum is not clipped by value.

    The bound of one client would otherwise depend on the other clients in the sum.

    Raises:
        ConfigError: names the setting to raise.
    """
    # One user's count of an item is 0 or 1. Counts of several users are bounded only by the norm.
    largest = min(clip_norm, 1.0) if run.statistics and run.max_users == 1 else clip_norm
    require(
        largest <= run.clip_range,
        f"privacy.clip_norm={clip_norm:g} allows values that secure aggregation would clip again: "
        f"set secure_aggregation.clip_range={largest:g} or above",
    )


def require_statistics(run: RunFacts) -> None:
    """Check that the statistics of a closed-form model have a bounded norm.

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
    """Check that the budget is given exactly once and in range.

    Raises:
        ConfigError: names the value and the fix.
    """
    require(
        (noise_multiplier is None) != (target_epsilon is None),
        f"privacy.noise_multiplier={noise_multiplier} and target_epsilon={target_epsilon}: exactly "
        "one of them must be given; set the other to null",
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
            f"privacy.delta={delta:g} is too small for float64: give {LEAST_DELTA:g} or more",
        )


def check_cost(noise_multiplier: float, delta: float, releases: int) -> None:
    """Check that the epsilon of the noise is a finite number.

    Args:
        noise_multiplier: standard deviation / sensitivity; 0 means no noise and no guarantee.
        delta: see `accounting.epsilon_of`.
        releases: number of releases of the run.

    Raises:
        ConfigError: names the value and the fix.
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
    """Check that the clipping bound is positive, and finite if noise is scaled by it.

    Raises:
        ConfigError: names the value and the fix.
    """
    require(clip_norm > 0, f"privacy.clip_norm must be above 0: {clip_norm}")
    noise = bool(noise_multiplier) if target_epsilon is None else not isinf(target_epsilon)
    # A longer update would be rejected as too large, and that reveals something about the data.
    require(
        isinf(clip_norm) or clip_norm <= HUGE,
        f"privacy.clip_norm={clip_norm:g} is larger than any update that a client may send: give "
        f"{HUGE:g} or less",
    )
    require(
        not (isinf(clip_norm) and noise),
        "privacy.clip_norm=inf does not clip, so no noise can hide a client: give a number, or "
        "set noise_multiplier=0",
    )

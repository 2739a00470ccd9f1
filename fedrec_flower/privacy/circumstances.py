"""What a mechanism must know of a run before it can promise anything, and what it refuses."""

from dataclasses import dataclass
from typing import Literal

from fedrec_flower.errors import ConfigError, require

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

"""Strategies that a few lying clients cannot lead astray; the server sees every update by itself.

Clients that learnt from nothing have no vote. What the others' updates come to is stepped by like
any average, by the server optimiser of choice: see `stepping`.

Strategies that hear only clients who agree with their neighbours: see `aggregation.elections`.

Source: Blanchard et al. 2017 (Krum, Multi-Krum); El Mhamdi et al. 2018 (Bulyan).
"""

from abc import abstractmethod
from typing import ClassVar, Literal

import numpy as np

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Shapes, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.aggregators.krum import (
    BULYAN_FACTOR,
    KRUM_FACTOR,
    bulyan,
    krum,
    multi_krum,
)
from fedrec_flower.strategies.aggregators.robust import (
    floor_share,
    median,
    norm_bound,
    trimmed_mean,
)
from fedrec_flower.strategies.base import Aggregation, FederationInfo
from fedrec_flower.strategies.fedopt import ServerOptimizer, SteppingStrategy, chosen

_HALF = 0.5


class RobustStrategy(SteppingStrategy):
    """Combines the updates by a robust rule, then steps.

    Args:
        info: facts of the run.
        aggregation: "all_clients": who did not touch a table's row says zero of it (the textbook);
            "touched_clients": a row is decided by the clients that touched it.
        server_optimizer: how the server steps, named as the strategy that averages and steps so.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment, momentum of "fedavgm", in [0, 1).
        beta2: decay of its second moment, in [0, 1).
        tau: floor of its denominator, in units of the parameters.
    """

    needs_individual_updates: ClassVar[bool] = True
    uses_only_the_sum: ClassVar[bool] = False

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)

    @abstractmethod
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """The update that stands for the cohort's, full shapes; every weight is above zero."""

    def aggregate(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `FederatedStrategy.aggregate`."""
        voters = np.flatnonzero(updates.weights > 0)
        if len(voters) < len(updates.clients):
            updates = updates.select(voters, self.info.item_tables)
        return self.rule(updates, shapes)


class Median(RobustStrategy):
    """The median of every value. Source: Yin et al. 2018. Arguments: see `RobustStrategy`."""

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        return median(updates, shapes, self.info.item_tables, self.aggregation)


class TrimmedMean(RobustStrategy):
    """The mean of every value without its extremes. Source: Yin et al. 2018.

    Args:
        info: facts of the run.
        aggregation: see `RobustStrategy`, like all that follow `trim`.
        trim: share of the clients cut at each end, in [0, .5); 0 is FedAvg.
        server_optimizer: how the server steps.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment.
        beta2: decay of its second moment.
        tau: floor of its denominator.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        trim: float,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        require(0 <= trim < _HALF, f"strategy.trim must be in [0, 0.5): {trim}")
        rates = (server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, server_optimizer, *rates)
        self.trim = trim

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables = self.info.item_tables
        return trimmed_mean(updates, shapes, tables, self.aggregation, self.trim)


class NormBound(RobustStrategy):
    """The mean of updates none of which is long. Source: Sun et al. 2019.

    Args:
        info: facts of the run.
        aggregation: see `RobustStrategy`, like all that follow `bound`.
        bound: the longest norm of a whole update, in units of the parameters; None: the median
            norm of the cohort.
        server_optimizer: how the server steps.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment.
        beta2: decay of its second moment.
        tau: floor of its denominator.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        bound: float | None,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        require(bound is None or bound > 0, f"strategy.bound must be above 0 or null: {bound}")
        rates = (server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, server_optimizer, *rates)
        self.bound = bound

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables = self.info.item_tables
        return norm_bound(updates, shapes, tables, self.aggregation, self.bound)


class Krum(RobustStrategy):
    """The update of the one client that is nearest to its neighbours.

    Args:
        info: facts of the run.
        aggregation: "all_clients" compares whole updates (the textbook), "touched_clients" decides
            each item row among the clients that touched it.
        byzantine_share: share of a cohort that may lie, rounded down to clients; what is not a
            liar must outnumber them: see `needs`.
        server_optimizer: how the server steps; see `RobustStrategy`, like all that follow.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment.
        beta2: decay of its second moment.
        tau: floor of its denominator.

    Raises:
        ConfigError: if the cohort is too small to outvote so many.
    """

    needs: ClassVar[int] = KRUM_FACTOR  # f liars need as many times f clients, and three more

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        byzantine_share: float,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        _check(byzantine_share, info.clients_per_round, self.needs)
        rates = (server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, server_optimizer, *rates)
        self.byzantine_share = byzantine_share

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables = self.info.item_tables
        return krum(updates, shapes, tables, self.aggregation, self.byzantine_share)


class MultiKrum(Krum):
    """The mean of all clients but those furthest from their neighbours. Arguments: see `Krum`."""

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables = self.info.item_tables
        return multi_krum(updates, shapes, tables, self.aggregation, self.byzantine_share)


class Bulyan(Krum):
    """The middle of what clients near their neighbours say.

    Args:
        info: facts of the run.
        aggregation: see `Krum`, like all that follow `election`.
        byzantine_share: share of a cohort that may lie.
        election: "once": all by the same scores, as in Flower; "recursive": one by one, each by
            the scores among those that remain, as in the paper; see `aggregation.bulyan`.
        server_optimizer: how the server steps.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment.
        beta2: decay of its second moment.
        tau: floor of its denominator.
    """

    needs: ClassVar[int] = BULYAN_FACTOR

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        byzantine_share: float,
        election: Literal["once", "recursive"],
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        rates = (server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, byzantine_share, server_optimizer, *rates)
        self.election = election

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables, share = self.info.item_tables, self.byzantine_share
        return bulyan(updates, shapes, tables, self.aggregation, share, self.election)


def _check(share: float, cohort: int, needs: int) -> None:
    require(
        0 <= share < 1 / needs, f"strategy.byzantine_share must be in [0, {1 / needs}): {share}"
    )
    liars = floor_share(cohort, share)
    require(
        cohort >= needs * liars + 3,
        f"{needs * liars + 3} clients outvote {liars} liars and a cohort has {cohort}: raise"
        f" clients_per_round or lower strategy.byzantine_share={share}",
    )

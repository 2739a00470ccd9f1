"""Strategies that hear only clients who agree with their neighbours: see `aggregation.elections`.

Source: Blanchard et al. 2017 (Krum, Multi-Krum); El Mhamdi et al. 2018 (Bulyan).
"""

from typing import ClassVar, Literal

from fedrec_flower.aggregation import (
    BULYAN_NEEDS,
    KRUM_NEEDS,
    Shapes,
    Updates,
    bulyan,
    krum,
    multi_krum,
    share_of,
)
from fedrec_flower.errors import require
from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.plan import Observer, Plan
from fedrec_flower.strategies.robust import RobustStrategy
from fedrec_flower.strategies.stepping import ServerOptimizer


class Krum(RobustStrategy):
    """The update of the one client that is nearest to its neighbours.

    Args:
        plan: the run.
        observer: hears of every round.
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

    needs: ClassVar[int] = KRUM_NEEDS  # f liars need as many times f clients, and three more

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        byzantine_share: float,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        _check(byzantine_share, plan.clients_per_round, self.needs)
        rates = (server_learning_rate, beta1, beta2, tau)
        super().__init__(plan, observer, aggregation, server_optimizer, *rates)
        self.byzantine_share = byzantine_share

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables = self.plan.item_tables
        return krum(updates, shapes, tables, self.aggregation, self.byzantine_share)


class MultiKrum(Krum):
    """The mean of all clients but those furthest from their neighbours. Arguments: see `Krum`."""

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables = self.plan.item_tables
        return multi_krum(updates, shapes, tables, self.aggregation, self.byzantine_share)


class Bulyan(Krum):
    """The middle of what clients near their neighbours say.

    Args:
        plan: the run.
        observer: hears of every round.
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

    needs: ClassVar[int] = BULYAN_NEEDS

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        byzantine_share: float,
        election: Literal["once", "recursive"],
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        rates = (server_learning_rate, beta1, beta2, tau)
        super().__init__(plan, observer, aggregation, byzantine_share, server_optimizer, *rates)
        self.election = election

    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `RobustStrategy.rule`."""
        tables, share = self.plan.item_tables, self.byzantine_share
        return bulyan(updates, shapes, tables, self.aggregation, share, self.election)


def _check(share: float, cohort: int, needs: int) -> None:
    require(
        0 <= share < 1 / needs, f"strategy.byzantine_share must be in [0, {1 / needs}): {share}"
    )
    liars = share_of(cohort, share)
    require(
        cohort >= needs * liars + 3,
        f"{needs * liars + 3} clients outvote {liars} liars and a cohort has {cohort}: raise"
        f" clients_per_round or lower strategy.byzantine_share={share}",
    )

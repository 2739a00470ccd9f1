"""Strategies that tolerate a few malicious clients, by a robust aggregation rule.

The server sees every update. Clients without training data are left out. The aggregated update
is applied by the server optimizer. The rules are in `aggregators`.

Source: Yin et al. 2018 (median, trimmed mean); Sun et al. 2019 (norm bound); Blanchard et al. 2017
(Krum, Multi-Krum); El Mhamdi et al. 2018 (Bulyan).
"""

from abc import abstractmethod
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.ranges import PositiveFloat
from fedrec_flower.core.types import Shapes, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.aggregators.krum import (
    BULYAN_FACTOR,
    KRUM_FACTOR,
    Selection,
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
from fedrec_flower.strategies.aggregators.server_optimizers import ServerOptimizer
from fedrec_flower.strategies.base import Aggregation, FederationInfo
from fedrec_flower.strategies.fedopt import FedOpt


class RobustStrategy(FedOpt):
    """Combines the clients' updates by a robust rule; the base of the robust strategies.

    Args:
        info: facts of the run.
        aggregation: "all_clients": a client that did not touch a table's row counts with zero (the
            textbook); "touched_clients": the clients that touched a row decide it.
        server_optimizer: the server's optimizer.
    """

    needs_individual_updates: ClassVar[bool] = True
    uses_only_the_sum: ClassVar[bool] = False

    @abstractmethod
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        """The aggregated update, full shapes; the weights of `updates` are above 0."""

    @override
    def aggregate(self, updates: Updates, shapes: Shapes) -> Tensors:
        with_data = np.flatnonzero(updates.weights > 0)
        if len(with_data) < len(updates.clients):
            updates = updates.select(with_data, self.info.item_tables)
        return self.rule(updates, shapes)


class Median(RobustStrategy):
    """The median of every coordinate. Arguments: see `RobustStrategy`."""

    @override
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        return median(updates, shapes, self.info.item_tables, self.aggregation)


class TrimmedMean(RobustStrategy):
    """The mean of every coordinate without its extremes.

    Args:
        info: facts of the run.
        aggregation: see `RobustStrategy`.
        trim: share of the clients cut at each end, in [0, 0.5); 0 is FedAvg.
        server_optimizer: the server's optimizer.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        trim: Annotated[float, Field(ge=0, lt=0.5)],
        server_optimizer: ServerOptimizer,
    ) -> None:
        super().__init__(info, aggregation, server_optimizer)
        self.trim = trim

    @override
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        return trimmed_mean(updates, shapes, self.info.item_tables, self.aggregation, self.trim)


class NormBound(RobustStrategy):
    """The mean of updates scaled down to a maximum norm.

    Args:
        info: facts of the run.
        aggregation: see `RobustStrategy`.
        bound: maximum norm of a whole update, in units of the parameters; None: the median norm
            of the cohort.
        server_optimizer: the server's optimizer.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        bound: PositiveFloat | None,
        server_optimizer: ServerOptimizer,
    ) -> None:
        super().__init__(info, aggregation, server_optimizer)
        self.bound = bound

    @override
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        return norm_bound(updates, shapes, self.info.item_tables, self.aggregation, self.bound)


class Krum(RobustStrategy):
    """The update of the one client that is nearest to its neighbours.

    Args:
        info: facts of the run.
        aggregation: "all_clients" compares whole updates (the textbook), "touched_clients"
            compares, for each item row, the clients that touched it.
        byzantine_share: share f of a cohort that may be malicious, rounded down to clients; the
            cohort needs `factor` * f + 3 clients.
        server_optimizer: the server's optimizer.

    Raises:
        ConfigError: if the cohort is too small for so many malicious clients.
    """

    factor: ClassVar[int] = KRUM_FACTOR

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        byzantine_share: float,
        server_optimizer: ServerOptimizer,
    ) -> None:
        _check_cohort(byzantine_share, info.clients_per_round, self.factor)
        super().__init__(info, aggregation, server_optimizer)
        self.byzantine_share = byzantine_share

    @override
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        tables = self.info.item_tables
        return krum(updates, shapes, tables, self.aggregation, self.byzantine_share)


class MultiKrum(Krum):
    """The mean of all clients but those furthest from their neighbours. Arguments: see `Krum`."""

    @override
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        tables = self.info.item_tables
        return multi_krum(updates, shapes, tables, self.aggregation, self.byzantine_share)


class Bulyan(Krum):
    """The mean near the median of the clients nearest to their neighbours.

    Args:
        info: facts of the run.
        aggregation: see `Krum`.
        byzantine_share: share of a cohort that may be malicious.
        election: how clients are selected, "once" as in Flower or "recursive" as in the paper;
            see `aggregators.krum.bulyan`.
        server_optimizer: the server's optimizer.
    """

    factor: ClassVar[int] = BULYAN_FACTOR

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        byzantine_share: float,
        election: Selection,
        server_optimizer: ServerOptimizer,
    ) -> None:
        super().__init__(info, aggregation, byzantine_share, server_optimizer)
        self.election = election

    @override
    def rule(self, updates: Updates, shapes: Shapes) -> Tensors:
        tables = self.info.item_tables
        share = self.byzantine_share
        return bulyan(updates, shapes, tables, self.aggregation, share, self.election)


def _check_cohort(share: float, cohort: int, factor: int) -> None:
    require(
        0 <= share < 1 / factor, f"strategy.byzantine_share must be in [0, {1 / factor}): {share}"
    )
    num_malicious = floor_share(cohort, share)
    needed = factor * num_malicious + 3
    require(
        cohort >= needed,
        f"the strategy needs {needed} clients to tolerate {num_malicious} malicious ones and a "
        f"cohort has {cohort}: raise clients_per_round or lower strategy.byzantine_share={share}",
    )

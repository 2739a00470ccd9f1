"""No federation at all: the control that an honest protocol must leave at chance.

No federation: one client holds everything, and what it learns is the model.
"""

from typing import ClassVar

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.strategies.aggregators.server_optimizers import average
from fedrec_flower.strategies.base import FederatedStrategy, FederationInfo, RoundInfo
from fedrec_flower.strategies.sufficient_statistics import require_signal, solved


class LocalOnly(FederatedStrategy):
    """Every client keeps every parameter to itself; messages carry requests and sums alone.

    Args:
        info: facts of the run.
    """

    communicates: ClassVar[bool] = False
    uses_only_the_sum: ClassVar[bool] = True

    def __init__(self, info: FederationInfo) -> None:
        super().__init__(info, "all_clients")

    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """Nothing travelled, nothing moves."""
        del update
        return parameters


class Centralized(FederatedStrategy):
    """Takes over what the one client learnt, or solves what it told.

    Of several clients it takes the textbook mean, or solves the sum.

    Args:
        info: facts of the run.
    """

    uses_only_the_sum: ClassVar[bool] = True  # a mean or a solution needs nothing else
    solves_statistics: ClassVar[bool] = True

    def __init__(self, info: FederationInfo) -> None:
        super().__init__(info, "all_clients")
        if isinstance(info.model, ClosedFormRecommender):
            require_signal(info.model, info)

    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        """See `FederatedStrategy.apply_sum`."""
        model = self.info.model
        if isinstance(model, ClosedFormRecommender):
            return solved(model, total, parameters, round_)
        return super().apply_sum(parameters, total, round_)

    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """The whole update, unbent."""
        return average(parameters, update, 1.0)

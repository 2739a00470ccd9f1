"""No federation at all: the control that an honest protocol must leave at chance.

No federation: one client holds everything, and what it learns is the model.
"""

from typing import ClassVar

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.federation.server.loop import FederatedStrategy
from fedrec_flower.federation.server.plan import Observer, Plan
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.strategies.aggregators.server_optimizers import average
from fedrec_flower.strategies.sufficient_statistics import require_signal, solved


class LocalOnly(FederatedStrategy):
    """Every client keeps every parameter to itself; messages carry requests and sums alone.

    Args:
        plan: the run.
        observer: hears of every round.
    """

    shares: ClassVar[bool] = False

    def __init__(self, plan: Plan, observer: Observer) -> None:
        super().__init__(plan, observer, "all_clients")

    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """Nothing travelled, nothing moves."""
        del update
        return parameters


class Centralized(FederatedStrategy):
    """Takes over what the one client learnt, or solves what it told.

    Of several clients it takes the textbook mean, or solves the sum.

    Args:
        plan: the run.
        observer: hears of every round.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        super().__init__(plan, observer, "all_clients")
        if isinstance(plan.model, ClosedFormRecommender):
            require_signal(plan.model, plan)

    def move(self, parameters: Tensors, total: UpdateSum) -> Tensors:
        """See `FederatedStrategy.move`."""
        model = self.plan.model
        if isinstance(model, ClosedFormRecommender):
            return solved(model, total, parameters, self.plan.curator)
        return super().move(parameters, total)

    @property
    def by_sum_alone(self) -> bool:
        """See `FederatedStrategy.by_sum_alone`; a mean or a solution needs nothing else."""
        return True

    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """The whole update, unbent."""
        return average(parameters, update, 1.0)

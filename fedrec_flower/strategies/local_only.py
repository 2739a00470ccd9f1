"""No federation at all: the control that an honest protocol must leave at chance."""

from typing import ClassVar

from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.plan import Observer, Plan


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

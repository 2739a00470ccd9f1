"""Baselines: local training without communication, and centralised training."""

from typing import ClassVar

from typing_extensions import override

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.strategies.base import FederatedStrategy, FederationInfo, RoundInfo
from fedrec_flower.strategies.sufficient_statistics import require_signal, solved


class LocalOnly(FederatedStrategy):
    """Every client keeps all parameters; messages carry requests and metric sums only.

    Its held-out items must be at chance under an honest evaluation protocol.

    Args:
        info: facts of the run.
    """

    communicates: ClassVar[bool] = False
    uses_only_the_sum: ClassVar[bool] = True

    def __init__(self, info: FederationInfo) -> None:
        super().__init__(info, "all_clients")

    @override
    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        return parameters


class Centralized(FederatedStrategy):
    """One client has all data; its trained parameters, or the solved statistics, are the model.

    With several clients it takes the textbook mean, or solves the sum.

    Args:
        info: facts of the run.
    """

    uses_only_the_sum: ClassVar[bool] = True
    solves_statistics: ClassVar[bool] = True

    def __init__(self, info: FederationInfo) -> None:
        super().__init__(info, "all_clients")
        if isinstance(info.model, ClosedFormRecommender):
            require_signal(info.model, info)

    @override
    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        model = self.info.model
        if isinstance(model, ClosedFormRecommender):
            return solved(model, total, parameters, round_)
        return super().apply_sum(parameters, total, round_)

    @override
    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        return {name: value + update[name] for name, value in parameters.items()}

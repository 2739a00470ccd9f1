"""No averaging: the server adds up the clients' statistics and solves the model."""

from fedrec_flower.aggregation import UpdateSum
from fedrec_flower.errors import ConfigError
from fedrec_flower.models.base import Tensors
from fedrec_flower.models.exact import ExactRecommender
from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.plan import Observer, Plan


class Sums(FederatedStrategy):
    """Solves an exact model from the sum over the cohort; needs nothing but that sum.

    Args:
        plan: the run.
        observer: hears of every round.

    Raises:
        ConfigError: if the model is trained by gradients.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        super().__init__(plan, observer, "all_clients")
        if not isinstance(plan.model, ExactRecommender):
            raise ConfigError(
                f"strategy=sums does not fit {type(plan.model).__name__}, which is trained by "
                "gradients: choose strategy=fedavg or fedadam"
            )
        self._model = plan.model

    def move(self, parameters: Tensors, total: UpdateSum) -> Tensors:
        """See `FederatedStrategy.move`; the sum is solved, no mean is taken."""
        curator = self.plan.curator
        sums = self._model.debiased(total.tensors, curator.flip_rate, total.weight)
        return self.step(parameters, self._model.solve(sums, parameters, curator.noise_std))

    @property
    def by_sum_alone(self) -> bool:
        """See `FederatedStrategy.by_sum_alone`."""
        return True

    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """The solution takes the parameters' place."""
        del parameters
        return update

"""Closed-form training: the server sums the clients' statistics and solves the model."""

import logging
from typing import ClassVar

from typing_extensions import override

from fedrec_flower.core.errors import ConfigError, TrainingError, require
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.models.closed_form import ClosedFormRecommender, Noise
from fedrec_flower.models.ops.cooccurrence import SIGNIFICANT
from fedrec_flower.strategies.base import FederatedStrategy, FederationInfo, RoundInfo

_LOG = logging.getLogger(__name__)


class SufficientStatistics(FederatedStrategy):
    """Solves a closed-form model from the sum of the cohort's statistics.

    Args:
        info: facts of the run.

    Raises:
        ConfigError: if the model is trained by gradients.
    """

    uses_only_the_sum: ClassVar[bool] = True
    solves_statistics: ClassVar[bool] = True

    def __init__(self, info: FederationInfo) -> None:
        super().__init__(info, "all_clients")
        if not isinstance(info.model, ClosedFormRecommender):
            raise ConfigError(
                f"strategy=sums does not fit {type(info.model).__name__}, which is trained by "
                "gradients: choose strategy=fedavg or fedadam"
            )
        self._model = info.model
        require_signal(info.model, info)

    @override
    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        return solved(self._model, total, parameters, round_)

    @override
    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        return update


def require_signal(model: ClosedFormRecommender, info: FederationInfo) -> None:
    """Check that randomized response leaves a signal for items that all users have.

    Raises:
        ConfigError: with the standard deviation and the number of users.
    """
    rate = info.flip_rate
    if not (rate and model.bounded):  # unbounded models are refused elsewhere
        return
    max_users = info.clients_per_round * info.max_client_weight  # weights count users
    std = model.largest_std(Noise.of_answers(rate, max_users))
    require(
        SIGNIFICANT * std < max_users,
        f"privacy.epsilon over privacy.max_items flips {rate:.1%} of the answers: an item of all "
        f"{max_users:.0f} users is then counted with a standard deviation of {std:.0f} users, and "
        f"{type(model).__name__} learns nothing; raise privacy.epsilon, or lower "
        "privacy.max_items",
    )
    _LOG.info(
        "randomized response flips %.1f %% of the answers of at most %.0f users: the counts that "
        "%s is solved from have a standard deviation of %.0f users",
        100 * rate,
        max_users,
        type(model).__name__,
        std,
    )


def solved(
    model: ClosedFormRecommender, total: UpdateSum, parameters: Tensors, round_: RoundInfo
) -> Tensors:
    """Solve a closed-form model from a released sum.

    Args:
        model: the recommender.
        total: the released sum; under randomized response its weight is the number of users.
        parameters: the shared parameters that the statistics were computed with.
        round_: the noise in the sum.

    Raises:
        TrainingError: if the noise hides all differences between items.
    """
    sums = total.tensors
    noise = Noise(round_.noise_std)
    if round_.flip_rate:
        sums = model.debiased(sums, round_.flip_rate, total.weight)
        noise = Noise.of_answers(round_.flip_rate, total.weight)
    solution = model.solve(sums, parameters, noise)
    if noise and not model.separates_items(solution):
        raise TrainingError(
            f"nothing in the released sums of {type(model).__name__} exceeds the noise of privacy "
            f"({noise.of_items:.3g} users, standard deviation), so that all items score alike: "
            "raise privacy.target_epsilon (randomized_response: privacy.epsilon and, for models of "
            "pairs, privacy.max_items), take more clients, or choose model=popularity"
        )
    return solution

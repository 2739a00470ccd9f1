"""Differential privacy with a trusted server: clip each client, add noise to the sum once.

Sources: McMahan et al. 2018, "Learning differentially private recurrent language models",
Algorithm 1 with the fixed-denominator estimator; Andrew et al. 2021, "Differentially private
learning with adaptive clipping", Algorithm 1. For statistics: the Gaussian mechanism on a sum to
which every user contributes a vector of bounded norm.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float64Array, IndexArray
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.accounting import default_delta, noise_multiplier_for
from fedrec_flower.privacy.clipping import clip_updates, tensor_norms, total_norms
from fedrec_flower.privacy.gaussian import CentralDPServer
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.requirements import (
    AggregationFacts,
    RunFacts,
    Unit,
    check_budget,
    check_clipping,
    check_cost,
    require_no_retries,
    require_range,
    require_statistics,
    require_sum_alone,
    require_unit,
)

UNCLIPPED = "unclipped"  # extra tensor: +0.5 if the update was not clipped, else -0.5

_ROUNDING_MARGIN = 1 - 2.0**-20  # the bound must also hold after rounding to float32


@dataclass(frozen=True)
class CentralDP(PrivacyMechanism):
    """Central differential privacy: the released model is protected, the server is trusted.

    Attributes:
        clip_norm: largest L2 norm of a client's update, in units of the parameters; or of its
            statistics, summed over its users, in users. With adaptive clipping the initial bound.
        clipping: "flat" bounds the L2 norm of a client's whole message, "per_tensor" bounds each
            tensor to an equal share. Statistics are always clipped as a whole.
        noise_multiplier: standard deviation of the noise on the sum / clip_norm; None if it
            follows from `target_epsilon`.
        target_epsilon: the epsilon spent after the last round; infinity for no noise.
        delta: delta of the guarantee; None for num_clients ** -1.1.
        sampling: "poisson" samples each client with probability clients_per_round / num_clients,
            and the accountant uses amplification by sampling; "fixed" samples clients_per_round
            clients, and is accounted for without amplification.
        unit: the protected unit: a "user", which requires one user per client, or a "client".
        adaptive_clipping: whether the bound follows a quantile of the clients' norms.
        target_quantile: the share of updates that is not to be clipped.
        clip_learning_rate: step of the logarithm of the bound in a round.
        count_noise: standard deviation of the noise on the number of unclipped updates; None for
            clients_per_round / 20.

    Raises:
        ConfigError: if a value is impossible.
    """

    clip_norm: float
    clipping: Literal["flat", "per_tensor"]
    noise_multiplier: float | None
    target_epsilon: float | None
    delta: float | None
    sampling: Literal["poisson", "fixed"]
    unit: Unit
    adaptive_clipping: bool
    target_quantile: float
    clip_learning_rate: float
    count_noise: float | None

    def __post_init__(self) -> None:
        """Validate the values."""
        check_budget(self.noise_multiplier, self.target_epsilon, self.delta)
        check_clipping(self.clip_norm, self.noise_multiplier, self.target_epsilon)
        quantile = self.target_quantile
        require(
            0 <= quantile <= 1, f"privacy.target_quantile must be a share from 0 to 1: {quantile}"
        )
        noise = self.count_noise
        require(noise is None or noise > 0, f"privacy.count_noise must be above 0: {noise}")
        require(
            not (self.adaptive_clipping and self.clipping == "per_tensor"),
            "privacy.clipping=per_tensor has several norms and adaptive clipping follows one: set "
            "privacy.clipping=flat",
        )

    @property
    @override
    def has_guarantee(self) -> bool:
        return True

    @property
    @override
    def trusts_server(self) -> bool:
        return True

    @property
    @override
    def is_random(self) -> bool:
        return True

    @property
    @override
    def hides_rows(self) -> bool:
        return True

    @property
    @override
    def extra_tensors(self) -> dict[str, tuple[int, ...]]:
        return {UNCLIPPED: (1,)} if self.adaptive_clipping else {}

    @override
    def check(self, run: RunFacts, aggregation: AggregationFacts) -> None:
        require_unit(self.unit, run)
        require_sum_alone(aggregation)
        require_no_retries(run)
        require_statistics(run)
        require(
            not (self.adaptive_clipping and run.statistics),
            "privacy.adaptive_clipping=true learns its bound over rounds, and statistics are sent "
            "in one round: set it to false",
        )
        if self.noise_multiplier:
            require_range(self.clip_norm, run)
            require(
                not (self.adaptive_clipping and run.rounding),
                "privacy.adaptive_clipping=true may raise its bound above "
                "secure_aggregation.clip_range: set it to false",
            )

    @override
    def max_weight(self, max_examples: int, max_users: int) -> float:
        """Every message has weight 1, for any number of interactions."""
        return 1.0

    @override
    def resolve(self, run: RunFacts) -> Mapping[str, Any]:
        delta = default_delta(run.num_clients) if self.delta is None else self.delta
        rate = run.rate if self.sampling == "poisson" else 1.0
        multiplier = self.noise_multiplier
        if self.target_epsilon is not None:
            multiplier = noise_multiplier_for(self.target_epsilon, delta, rate, run.num_rounds)
        check_cost(multiplier or 0.0, delta, run.num_rounds)
        noise = run.clients_per_round / 20 if self.count_noise is None else self.count_noise
        require(
            not self.adaptive_clipping or (multiplier or 0.0) < 2 * noise,
            f"privacy.count_noise={noise:g} spends the whole budget of noise_multiplier="
            f"{multiplier:g}: raise it above {(multiplier or 0.0) / 2:g}",
        )
        return {
            "noise_multiplier": multiplier,
            "target_epsilon": None,
            "delta": delta,
            "count_noise": noise,
        }

    @property
    def update_multiplier(self) -> float:
        """The noise multiplier of the updates when the count of unclipped updates is also released.

        Andrew et al. 2021, Theorem 1: both releases together then cost as much as one release
        with `noise_multiplier`.
        """
        multiplier = self.noise_multiplier or 0.0
        noise = self.count_noise or 0.0
        if not self.adaptive_clipping or not multiplier:
            return multiplier
        return float((multiplier**-2 - (2 * noise) ** -2) ** -0.5)

    @override
    def server_mechanism(
        self, run: RunFacts, noise_source: NoiseSource, ledger: Ledger = NO_LEDGER
    ) -> CentralDPServer:
        """The mechanism must have all values set."""
        return CentralDPServer(self, run, noise_source, ledger, UNCLIPPED)

    @override
    def apply(self, updates: Updates, tables: Collection[str], clip_norm: float) -> Updates:
        sent = clip_updates(updates, tables, clip_norm, per_tensor=self.clipping == "per_tensor")
        if not self.adaptive_clipping:
            return sent
        short = total_norms(tensor_norms(updates, tables)) <= clip_norm
        # Plus or minus 0.5, so that one client changes the sum by at most 0.5.
        votes = (short - 0.5).astype(np.float32)[:, None]
        return replace(sent, tensors=sent.tensors | {UNCLIPPED: votes})

    @override
    def user_weights(
        self, model: ClosedFormRecommender, history: Columns, user_offsets: IndexArray
    ) -> Float64Array:
        """All users of a client have the same factor, because their sum is clipped."""
        lengths = model.statistic_norms(history, user_offsets)
        is_longer = lengths > self.clip_norm
        bound = self.clip_norm * _ROUNDING_MARGIN
        shares = np.where(is_longer, bound / np.where(is_longer, lengths, 1.0), 1.0)
        return np.repeat(shares, np.diff(user_offsets))

    @override
    def statistics_weight(self, history: Columns, num_clients: int) -> float:
        """1 for each client, for any number of interactions."""
        return float(num_clients)

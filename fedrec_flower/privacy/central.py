"""Differential privacy with a trusted server: clip each client, add noise to the sum once.

Sources: McMahan et al. 2018, "Learning differentially private recurrent language models",
Algorithm 1 with the fixed-denominator estimator; Andrew et al. 2021, "Differentially private
learning with adaptive clipping", Algorithm 1. For statistics: the Gaussian mechanism on a sum to
which every user contributes a vector of bounded length.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.accounting import default_delta, noise_multiplier_for
from fedrec_flower.privacy.clipping import clipped, norms, whole_norms
from fedrec_flower.privacy.gaussian import GaussianCurator
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.mechanism import NoPrivacy
from fedrec_flower.privacy.noise import Chance
from fedrec_flower.privacy.requirements import (
    Circumstances,
    Unit,
    Way,
    check_budget,
    check_clipping,
    check_cost,
    require_no_retries,
    require_range,
    require_statistics,
    require_sum_alone,
    require_unit,
)

UNCLIPPED = "unclipped"  # beside an update, by Andrew et al.: half a vote on whether it was short

_MARGIN = 1 - 2.0**-20  # a client's statistics travel in float32, and products round


@dataclass(frozen=True)
class CentralDP(NoPrivacy):
    """Whoever sees the model learns little about any one user; the server is trusted.

    Attributes:
        clip_norm: no client contributes a longer update, in units of the parameters; or longer
            statistics, summed over its users, in users. The first bound, where it adapts.
        clipping: "flat" bounds the L2 norm of all that a client sends, "per_tensor" gives each
            tensor an equal share. Statistics are always clipped as a whole.
        noise_multiplier: standard deviation of the noise on the sum, in clip norms; None if it
            follows from `target_epsilon`.
        target_epsilon: the epsilon to be spent by the last round; infinity for no noise.
        delta: the probability left out of the guarantee; None for num_clients ** -1.1.
        sampling: "poisson" asks each client with probability clients_per_round / num_clients,
            which the accountant rewards; "fixed" asks clients_per_round of them, and is accounted
            for as if every client had known when it was asked.
        unit: what is protected: a "user", which needs a user per client, or a "client".
        adaptive_clipping: whether the bound follows the quantile of the clients' norms.
        target_quantile: the share of updates that shall not be clipped.
        clip_learning_rate: how fast the bound follows: of its logarithm, a round.
        count_noise: standard deviation of the noise on the number of unclipped updates; None for
            a twentieth of the cohort.

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
        """Refuse what cannot be."""
        check_budget(self.noise_multiplier, self.target_epsilon, self.delta)
        check_clipping(self.clip_norm, self.noise_multiplier, self.target_epsilon)
        quantile, noise = self.target_quantile, self.count_noise
        possible = 0 <= quantile <= 1
        require(possible, f"privacy.target_quantile must be a share from 0 to 1: {quantile}")
        require(noise is None or noise > 0, f"privacy.count_noise must be above 0: {noise}")
        adapts = self.adaptive_clipping and self.clipping == "per_tensor"
        require(
            not adapts,
            "privacy.clipping=per_tensor has several norms and adaptive clipping follows one: set "
            "privacy.clipping=flat",
        )

    @property
    def guarantees(self) -> bool:
        """See `NoPrivacy.guarantees`."""
        return True

    @property
    def draws(self) -> bool:
        """See `NoPrivacy.draws`."""
        return True

    @property
    def hides_rows(self) -> bool:
        """See `NoPrivacy.hides_rows`."""
        return True

    @property
    def beside(self) -> dict[str, tuple[int, ...]]:
        """See `NoPrivacy.beside`."""
        return {UNCLIPPED: (1,)} if self.adaptive_clipping else {}

    def check(self, run: Circumstances, way: Way) -> None:
        """See `NoPrivacy.check`."""
        require_unit(self.unit, run)
        require_sum_alone(way)
        require_no_retries(run)
        require_statistics(run)
        require(
            not (self.adaptive_clipping and run.statistics),
            "privacy.adaptive_clipping=true learns its bound over rounds, and statistics are told "
            "in one: set it to false",
        )
        if self.noise_multiplier:
            require_range(self.clip_norm, run)
            require(
                not (self.adaptive_clipping and run.rounding),
                "privacy.adaptive_clipping=true may outgrow secure_aggregation.clip_range: set it "
                "to false",
            )

    def most_weight(self, most_examples: int, most_users: int) -> float:
        """See `NoPrivacy.most_weight`; what a client sends weighs 1, whatever it holds."""
        del most_examples, most_users
        return 1.0

    def settle(self, run: Circumstances) -> Mapping[str, Any]:
        """See `NoPrivacy.settle`."""
        delta = default_delta(run.num_clients) if self.delta is None else self.delta
        multiplier, rate = self.noise_multiplier, run.rate if self.sampling == "poisson" else 1.0
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
        """The multiplier left for the updates, once the count has had its share.

        Andrew et al. 2021, Theorem 1: both releases together then cost what `noise_multiplier`
        alone would.
        """
        multiplier, noise = self.noise_multiplier or 0.0, self.count_noise or 0.0
        if not self.adaptive_clipping or not multiplier:
            return multiplier
        return float((multiplier**-2 - (2 * noise) ** -2) ** -0.5)

    def curator(
        self, run: Circumstances, chance: Chance, ledger: Ledger = NO_LEDGER
    ) -> GaussianCurator:
        """See `NoPrivacy.curator`; of a settled configuration."""
        return GaussianCurator(self, run, chance, ledger, UNCLIPPED)

    def apply(self, updates: Updates, tables: Collection[str], clip_norm: float) -> Updates:
        """See `NoPrivacy.apply`."""
        sent = clipped(updates, tables, clip_norm, per_tensor=self.clipping == "per_tensor")
        if not self.adaptive_clipping:
            return sent
        short = whole_norms(norms(updates, tables)) <= clip_norm
        # Plus or minus a half: one client moves the sum by a half at most.
        votes = (short - 0.5).astype(np.float32)[:, None]
        return replace(sent, tensors=sent.tensors | {UNCLIPPED: votes})

    def user_weights(
        self, model: ClosedFormRecommender, history: Columns, user_offsets: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """See `NoPrivacy.user_weights`; a client's users share what clips their sum."""
        lengths = model.statistic_norms(history, user_offsets)
        longer = lengths > self.clip_norm
        bound = self.clip_norm * _MARGIN
        shares = np.where(longer, bound / np.where(longer, lengths, 1.0), 1.0)
        return np.repeat(shares, np.diff(user_offsets))

    def statistics_weight(self, history: Columns, num_clients: int) -> float:
        """See `NoPrivacy.statistics_weight`; 1 for each client, whatever it holds."""
        del history
        return float(num_clients)

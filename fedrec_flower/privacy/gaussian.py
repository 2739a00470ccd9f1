"""The server side of central differential privacy: sampling, noise on the sum, accounting."""

from collections.abc import Mapping
from math import ceil, exp, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Arrays, Float64Array, IndexArray
from fedrec_flower.core.updates import HUGE, UpdateSum
from fedrec_flower.privacy.accounting import History, accountant, append_release, epsilon_of
from fedrec_flower.privacy.ledger import Account, Ledger
from fedrec_flower.privacy.mechanism import ServerMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.requirements import RunFacts
from fedrec_flower.privacy.statement import (
    central_scope,
    initial_guarantee,
    noise_origin,
    not_covered,
)

# A node rounds its sum to float32, with a relative error of at most 2^-24. The sums with and
# without one client are rounded separately, and neither norm exceeds num_clients * clip_norm.
_FLOAT32_ROUNDING = 2.0**-23

if TYPE_CHECKING:
    from fedrec_flower.privacy.central import CentralDP

_MISSED_SHARE_OF_DELTA = 1e-3  # share of delta that rounds without a sum may add

_MAX_EPSILONS = 100  # number of rounds of a run for which rounds.csv has an epsilon


class CentralDPServer(ServerMechanism):
    """Releases the sum with Gaussian noise, divided by the expected size of the cohort.

    Args:
        privacy: the mechanism, with all values set.
        run: facts of the run.
        noise_source: source of the randomness of noise and cohorts.
        ledger: stores the account; it also counts releases after the last checkpoint.
        votes: name of the extra tensor that clients send with adaptive clipping.
    """

    def __init__(
        self,
        privacy: "CentralDP",
        run: RunFacts,
        noise_source: NoiseSource,
        ledger: Ledger,
        votes: str,
    ) -> None:
        self._privacy = privacy
        self._run = run
        self._noise_source = noise_source
        self._ledger = ledger
        self._votes = votes
        self._multiplier = privacy.noise_multiplier or 0.0
        self._delta = privacy.delta or 0.0
        self._clip_norm = privacy.clip_norm
        self._history: History = ()
        self._participated = np.zeros(run.num_clients, np.int64)
        if (account := ledger.read()) is not None:
            self._load(account)

    @property
    @override
    def noisy(self) -> bool:
        return True

    @property
    @override
    def hides_losses(self) -> bool:
        return True

    @property
    @override
    def extra_tensors(self) -> dict[str, tuple[int, ...]]:
        return self._privacy.extra_tensors

    @property
    @override
    def clip_norm(self) -> float:
        return self._clip_norm

    @property
    @override
    def noise_std(self) -> float:
        multiplier = self._privacy.update_multiplier
        if not multiplier:  # the bound may then be infinite
            return 0.0
        # A rounded sum changes by more than the bound when one client is added: by at most
        # clip_norm + rounding, for every outcome of stochastic rounding.
        rounding = self._run.rounding
        if not rounding:
            rounding = self._clip_norm * self._run.num_clients * _FLOAT32_ROUNDING
        return multiplier * (self._clip_norm + rounding)

    @property
    @override
    def is_spent(self) -> bool:
        """False for the first num_rounds releases, for which the noise was chosen."""
        if self._num_releases < self._run.num_rounds:
            return False
        return epsilon_of(self._after_another, self._delta) > self._ledger.budget

    @property
    def epsilon(self) -> float:
        """The epsilon spent, including that of the model that the run started from."""
        return epsilon_of(self._history, self._delta) + self._ledger.initial.epsilon

    @property
    def delta(self) -> float:
        """The delta of the guarantee, including that of the model that the run started from."""
        return self._delta + self._ledger.initial.delta

    @property
    def _num_releases(self) -> int:
        return sum(count for _, _, count in self._history)

    @override
    def cohort(self, sampled: IndexArray, round_: int) -> IndexArray:
        """With Poisson sampling, each client is sampled independently."""
        if self._privacy.sampling == "poisson":
            uniform = self._noise_source.stream("privacy-cohort", round_).uniform(
                (self._run.num_clients,)
            )
            sampled = np.flatnonzero(uniform < self._run.rate)
        self._participated[sampled] += 1
        return sampled

    def check_secure_aggregation(self, num_groups: int, num_clients: int, least: int) -> None:
        """Check that Poisson sampling rarely leaves a group below the minimum of clients.

        If the sampling of one client decides whether there is a sum, the client changes the
        release by the whole sum. This happens only if fewer than `least` other clients of a group
        are sampled, and depends only on their draws. In all other cases the round is the mechanism
        that was accounted for. The probability of this event therefore adds to delta, and all
        rounds together may add at most a thousandth of delta.
        """
        if self._privacy.sampling != "poisson" or not self._multiplier:
            return
        from scipy.stats import binom  # slow to import

        rate, rounds = self._run.rate, self._run.num_rounds
        missed = rounds * num_groups * float(binom.cdf(least - 1, num_clients - 1, rate))
        require(
            missed <= _MISSED_SHARE_OF_DELTA * self._delta,
            f"secure_aggregation.min_clients={least} gives no sum if fewer sampled clients are "
            "around a node, and Poisson sampling draws such a cohort in some round with "
            f"probability up to {min(missed, 1.0):.2g}, more than {_MISSED_SHARE_OF_DELTA:g} of "
            f"delta={self._delta:.2g}: raise clients_per_round or "
            "secure_aggregation.num_neighbours, lower secure_aggregation.min_clients, or set "
            "privacy.sampling=fixed",
        )

    @override
    def release(
        self, total: UpdateSum, shapes: Mapping[str, tuple[int, ...]], round_: int
    ) -> UpdateSum:
        """Weights and touched rows are not released."""
        self._account()  # before any noise is drawn: an uncounted release must not exist
        std = self.noise_std
        noisy = dict[str, Float64Array]()
        for name, shape in shapes.items():
            value = total.tensors.get(name, np.zeros(shape))
            scale = (self._privacy.count_noise or 0.0) if name == self._votes else std
            source = self._noise_source.stream(f"privacy-noise/{name}", round_)
            noisy[name] = value + scale * source.normal(shape) if scale else value
        if self._votes in noisy:
            self._adapt(float(noisy.pop(self._votes)[0]))
        return UpdateSum(noisy, float(self._run.clients_per_round), np.zeros(0))

    def _account(self) -> None:
        if self._privacy.sampling == "poisson":
            self._history = self._after_another
        else:
            self._history = self._largest_participation()
        self._ledger.write(self._spending())

    @property
    def _after_another(self) -> History:
        """The history after one more release, for any cohort."""
        if self._privacy.sampling == "poisson":
            return append_release(self._history, (self._multiplier, self._run.rate, 1))
        return self._largest_participation(more=1)

    def _largest_participation(self, more: int = 0) -> History:
        """The releases of the client that was sampled most often, without amplification."""
        most = int(self._participated.max()) + more
        return ((self._multiplier, 1.0, most),) if most else ()

    def _adapt(self, votes: float) -> None:
        """Move the bound towards the quantile by a factor (Andrew et al. 2021, equation 2)."""
        share = votes / self._run.clients_per_round + 0.5
        step = self._privacy.clip_learning_rate * (share - self._privacy.target_quantile)
        self._clip_norm = min(self._clip_norm * exp(-step), HUGE)

    @override
    def round_metrics(self) -> dict[str, float]:
        round_metrics = {"clip_norm": self._clip_norm} if self._privacy.adaptive_clipping else {}
        # An epsilon costs a Fourier transform: in a long run only some rounds and the last have it.
        if self._num_releases % ceil(self._run.num_rounds / _MAX_EPSILONS) and not self._is_last:
            return round_metrics
        return {"epsilon": self.epsilon, "delta": self.delta, **round_metrics}

    @property
    def _is_last(self) -> bool:
        return self._num_releases >= self._run.num_rounds

    @override
    def facts(self) -> dict[str, Any]:
        privacy = self._privacy
        poisson = privacy.sampling == "poisson"
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "privacy": {
                **central_scope(privacy.unit, poisson=poisson),
                "unit": privacy.unit,
                "accountant": accountant(self._run.rate if poisson else 1.0),
                "noise_multiplier": self._multiplier,
                "clip_norm": self._clip_norm if isfinite(self._clip_norm) else None,
                "sampling": privacy.sampling,
                "sampling_rate": self._run.rate,
                "num_releases": self._num_releases,
                **initial_guarantee(self._ledger.initial),
                "noise": noise_origin(self._noise_source),
                "does_not_cover": not_covered(
                    self._run, trusts_server=True, initial=self._ledger.initial.does_not_cover
                ),
            },
        }

    @override
    def state(self) -> Arrays:
        return {**self._spending(), "clip_norm": np.array([self._clip_norm])}

    def _spending(self) -> Arrays:
        """The releases so far, and the number of rounds that each client took part in."""
        return {
            "history": np.array(self._history, np.float64).reshape(-1, 3),
            "participated": self._participated.copy(),
        }

    @override
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._load(self._ledger.resumed(state))
        self._clip_norm = float(state["clip_norm"][0])

    def _load(self, spending: Account) -> None:
        rows = np.reshape(spending["history"], (-1, 3)).tolist()
        self._history = tuple((noise, rate, int(count)) for noise, rate, count in rows)
        self._participated = np.array(spending["participated"], np.int64)

"""The trusted server of central differential privacy: samples, adds noise once, keeps account."""

from collections.abc import Mapping
from math import ceil, exp, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.updates import HUGE, UpdateSum
from fedrec_flower.privacy.accounting import History, accountant, epsilon_of, joined
from fedrec_flower.privacy.ledger import Account, Ledger
from fedrec_flower.privacy.mechanism import Curator, State
from fedrec_flower.privacy.noise import Chance
from fedrec_flower.privacy.requirements import Circumstances
from fedrec_flower.privacy.statement import about_noise, before_this_run, outside

# A node rounds its sum to float32, relatively by 2^-24 at most. The sums with and without one
# client are rounded apart, and neither is longer than the bounds of all clients together.
_FLOAT32 = 2.0**-23

if TYPE_CHECKING:
    from fedrec_flower.privacy.central import CentralDP

_OF_DELTA = 1e-3  # what chance may add to delta by sums that masks do not let out

_FIGURES = 100  # epsilons that rounds.csv has of a run, at most


class GaussianCurator(Curator):
    """Releases the sum with Gaussian noise, over the expected cohort.

    Args:
        privacy: the mechanism, settled.
        run: the run.
        chance: where noise and cohorts come from.
        ledger: where the account is kept; it counts releases that a checkpoint has lost.
        votes: name of what clients tell beside their updates where clipping adapts.
    """

    def __init__(
        self,
        privacy: "CentralDP",
        run: Circumstances,
        chance: Chance,
        ledger: Ledger,
        votes: str,
    ) -> None:
        self._privacy, self._run, self._chance, self._votes = privacy, run, chance, votes
        self._ledger = ledger
        self._multiplier, self._delta = privacy.noise_multiplier or 0.0, privacy.delta or 0.0
        self._clip_norm = privacy.clip_norm
        self._history: History = ()
        self._participated = np.zeros(run.num_clients, np.int64)
        if (account := ledger.read()) is not None:
            self._take(account)

    @property
    def noisy(self) -> bool:
        """See `Curator.noisy`."""
        return True

    @property
    def hides_losses(self) -> bool:
        """See `Curator.hides_losses`."""
        return True

    @property
    def beside(self) -> dict[str, tuple[int, ...]]:
        """See `Curator.beside`."""
        return self._privacy.beside

    @property
    def clip_norm(self) -> float:
        """See `Curator.clip_norm`."""
        return self._clip_norm

    @property
    def noise_std(self) -> float:
        """See `Curator.noise_std`."""
        multiplier = self._privacy.update_multiplier
        # The bound may be infinite. Where sums are rounded, one client changes them by more than
        # the bound: whatever the coins of rounding, by at most so much.
        if not multiplier:
            return 0.0
        rounding = self._run.rounding or self._clip_norm * self._run.num_clients * _FLOAT32
        return multiplier * (self._clip_norm + rounding)

    @property
    def is_spent(self) -> bool:
        """See `Curator.is_spent`; the noise suffices for all rounds, each released once."""
        if self._num_releases < self._run.num_rounds:
            return False
        return epsilon_of(self._after_another, self._delta) > self._ledger.budget

    @property
    def epsilon(self) -> float:
        """What has been spent, the model that the run started from included."""
        return epsilon_of(self._history, self._delta) + self._ledger.before.epsilon

    @property
    def delta(self) -> float:
        """The probability that the guarantee of `epsilon` leaves out."""
        return self._delta + self._ledger.before.delta

    @property
    def _num_releases(self) -> int:
        return sum(count for _, _, count in self._history)

    def cohort(self, sampled: NDArray[np.int64], round_: int) -> NDArray[np.int64]:
        """See `Curator.cohort`; with Poisson sampling, each client by a coin of its own."""
        if self._privacy.sampling == "poisson":
            coin = self._chance.source("privacy-cohort", round_).uniform((self._run.num_clients,))
            sampled = np.flatnonzero(coin < self._run.rate)
        self._participated[sampled] += 1
        return sampled

    def check_masked(self, num_groups: int, num_clients: int, least: int) -> None:
        """See `Curator.check_masked`.

        Where a client's coin decides whether a sum comes out, it moves the release by the whole
        sum. This needs fewer than `least` others in a group, an event of their coins alone. Without
        it the round is the mechanism accounted for, so its probability is one of delta, and all
        rounds together may add a thousandth to that.
        """
        if self._privacy.sampling != "poisson" or not self._multiplier:
            return
        from scipy.stats import binom  # slow to import

        rate, rounds = self._run.rate, self._run.num_rounds
        missed = rounds * num_groups * float(binom.cdf(least - 1, num_clients - 1, rate))
        require(
            missed <= _OF_DELTA * self._delta,
            f"secure_aggregation.min_clients={least} releases nothing of a cohort with fewer "
            f"clients around a node, which coins draw in some round with probability up to "
            f"{min(missed, 1.0):.2g}, more than {_OF_DELTA:g} of delta={self._delta:.2g}: raise "
            "clients_per_round or secure_aggregation.num_neighbours, lower "
            "secure_aggregation.min_clients, or set privacy.sampling=fixed",
        )

    def release(
        self, total: UpdateSum, shapes: Mapping[str, tuple[int, ...]], round_: int
    ) -> UpdateSum:
        """See `Curator.release`; weights and touched rows are not released."""
        self._account()  # before anything is drawn: a release that nobody counted must not be
        std, noisy = self.noise_std, dict[str, NDArray[np.float64]]()
        for name, shape in shapes.items():
            value = total.tensors.get(name, np.zeros(shape))
            scale = (self._privacy.count_noise or 0.0) if name == self._votes else std
            source = self._chance.source(f"privacy-noise/{name}", round_)
            noisy[name] = value + scale * source.normal(shape) if scale else value
        if self._votes in noisy:
            self._adapt(float(noisy.pop(self._votes)[0]))
        return UpdateSum(noisy, float(self._run.clients_per_round), np.zeros(0))

    def _account(self) -> None:
        if self._privacy.sampling == "poisson":
            self._history = self._after_another
        else:
            self._history = self._asked_most()
        self._ledger.write(self._spending())

    @property
    def _after_another(self) -> History:
        """What the releases would be after one more, whoever takes part."""
        if self._privacy.sampling == "poisson":
            return joined(self._history, (self._multiplier, self._run.rate, 1))
        return self._asked_most(more=1)

    def _asked_most(self, more: int = 0) -> History:
        """Without reward for sampling: the client that was asked most often has spent most."""
        most = int(self._participated.max()) + more
        return ((self._multiplier, 1.0, most),) if most else ()

    def _adapt(self, votes: float) -> None:
        """Move the bound towards the quantile, geometrically (Andrew et al. 2021, equation 2)."""
        share = votes / self._run.clients_per_round + 0.5
        step = self._privacy.clip_learning_rate * (share - self._privacy.target_quantile)
        self._clip_norm = min(self._clip_norm * exp(-step), HUGE)

    def figures(self) -> dict[str, float]:
        """See `Curator.figures`."""
        figures = {"clip_norm": self._clip_norm} if self._privacy.adaptive_clipping else {}
        # A figure costs a Fourier transform: of a long run, some rounds have one, the last always.
        if self._num_releases % ceil(self._run.num_rounds / _FIGURES) and not self._is_last:
            return figures
        return {"epsilon": self.epsilon, "delta": self.delta, **figures}

    @property
    def _is_last(self) -> bool:
        return self._num_releases >= self._run.num_rounds

    def facts(self) -> dict[str, Any]:
        """See `Curator.facts`."""
        privacy, poisson = self._privacy, self._privacy.sampling == "poisson"
        what = f"one {privacy.unit}'s"
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "privacy": {
                "mechanism": "central differential privacy: the server is trusted",
                "unit": privacy.unit,
                "neighbours": f"{what} data are there or not"
                if poisson
                else f"{what} updates are there or are zero",
                "accountant": accountant(self._run.rate if poisson else 1.0),
                "noise_multiplier": self._multiplier,
                "clip_norm": self._clip_norm if isfinite(self._clip_norm) else None,
                "sampling": privacy.sampling,
                "sampling_rate": self._run.rate,
                "num_releases": self._num_releases,
                **before_this_run(self._ledger.before),
                "noise": about_noise(self._chance),
                "covers": "the shared parameters of every round and all that is computed from "
                "them; personal parameters never leave their client and are not released",
                "does_not_cover": outside(
                    self._run, trusts_server=True, before=self._ledger.before.does_not_cover
                ),
            },
        }

    def state(self) -> State:
        """See `Curator.state`."""
        return {**self._spending(), "clip_norm": np.array([self._clip_norm])}

    def _spending(self) -> State:
        """What has been spent, and by whom."""
        return {
            "history": np.array(self._history, np.float64).reshape(-1, 3),
            "participated": self._participated.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Curator.restore`."""
        self._take(self._ledger.resumed(state))
        self._clip_norm = float(state["clip_norm"][0])

    def _take(self, spending: Account) -> None:
        rows = np.reshape(spending["history"], (-1, 3)).tolist()
        self._history = tuple((noise, rate, int(count)) for noise, rate, count in rows)
        self._participated = np.array(spending["participated"], np.int64)

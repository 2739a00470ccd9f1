"""The trusted server of central differential privacy: samples, adds noise once, keeps account."""

from collections.abc import Mapping
from math import exp, isfinite
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import HUGE, UpdateSum
from fedrec_flower.privacy.accounting import History, epsilon_of, joined
from fedrec_flower.privacy.chance import Chance
from fedrec_flower.privacy.circumstances import Circumstances
from fedrec_flower.privacy.curator import Curator, State
from fedrec_flower.privacy.wording import about_noise, outside

if TYPE_CHECKING:
    from fedrec_flower.privacy.central import CentralDP


class GaussianCurator(Curator):
    """Releases the sum with Gaussian noise, over the expected cohort.

    Args:
        privacy: the mechanism, settled.
        run: the run.
        chance: where noise and cohorts come from.
        votes: name of what clients tell beside their updates where clipping adapts.
    """

    def __init__(
        self, privacy: "CentralDP", run: Circumstances, chance: Chance, votes: str
    ) -> None:
        self._privacy, self._run, self._chance, self._votes = privacy, run, chance, votes
        self._multiplier, self._delta = privacy.noise_multiplier or 0.0, privacy.delta or 0.0
        self._clip_norm = privacy.clip_norm
        self._history: History = ()
        self._participated = np.zeros(run.num_clients, np.int64)

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
        return multiplier * (self._clip_norm + self._run.rounding) if multiplier else 0.0

    @property
    def epsilon(self) -> float:
        """What has been spent."""
        return epsilon_of(self._history, self._delta)

    def cohort(self, sampled: NDArray[np.int64], round_: int) -> NDArray[np.int64]:
        """See `Curator.cohort`; with Poisson sampling, each client by a coin of its own."""
        if self._privacy.sampling == "poisson":
            coin = self._chance.source("privacy-cohort", round_).uniform((self._run.num_clients,))
            sampled = np.flatnonzero(coin < self._run.rate)
        self._participated[sampled] += 1
        return sampled

    def release(
        self, total: UpdateSum, shapes: Mapping[str, tuple[int, ...]], round_: int
    ) -> UpdateSum:
        """See `Curator.release`; weights and touched rows are not released."""
        std, noisy = self.noise_std, {}
        for name, shape in shapes.items():
            value = total.tensors.get(name, np.zeros(shape))
            scale = (self._privacy.count_noise or 0.0) if name == self._votes else std
            source = self._chance.source(f"privacy-noise/{name}", round_)
            noisy[name] = value + scale * source.normal(shape) if scale else value
        self._account()
        if self._votes in noisy:
            self._adapt(float(noisy.pop(self._votes)[0]))
        return UpdateSum(noisy, float(self._run.clients_per_round), np.zeros(0))

    def _account(self) -> None:
        if self._privacy.sampling == "poisson":
            self._history = joined(self._history, (self._multiplier, self._run.rate, 1))
        else:  # no reward for chance: whoever was asked most often has spent most
            most = int(self._participated.max())
            self._history = ((self._multiplier, 1.0, most),) if most else ()

    def _adapt(self, votes: float) -> None:
        """Move the bound towards the quantile, geometrically (Andrew et al. 2021, equation 2)."""
        share = votes / self._run.clients_per_round + 0.5
        step = self._privacy.clip_learning_rate * (share - self._privacy.target_quantile)
        self._clip_norm = min(self._clip_norm * exp(-step), HUGE)

    def figures(self) -> dict[str, float]:
        """See `Curator.figures`."""
        adapts = self._privacy.adaptive_clipping
        return {"epsilon": self.epsilon} | ({"clip_norm": self._clip_norm} if adapts else {})

    def facts(self) -> dict[str, Any]:
        """See `Curator.facts`."""
        privacy, poisson = self._privacy, self._privacy.sampling == "poisson"
        what = f"one {privacy.unit}'s"
        return {
            "epsilon": self.epsilon,
            "delta": self._delta,
            "privacy": {
                "mechanism": "central differential privacy: the server is trusted",
                "unit": privacy.unit,
                "neighbours": f"{what} data are there or not"
                if poisson
                else f"{what} updates are there or are zero",
                "accountant": "PRV, of Opacus",
                "noise_multiplier": self._multiplier,
                "clip_norm": self._clip_norm if isfinite(self._clip_norm) else None,
                "sampling": privacy.sampling,
                "sampling_rate": self._run.rate,
                "num_releases": sum(count for _, _, count in self._history),
                "noise": about_noise(self._chance),
                "covers": "the shared parameters of every round and all that is computed from "
                "them; personal parameters never leave their client and are not released",
                "does_not_cover": outside(self._run, trusts_server=True),
            },
        }

    def state(self) -> State:
        """See `Curator.state`."""
        return {
            "history": np.array(self._history, np.float64).reshape(-1, 3),
            "clip_norm": np.array([self._clip_norm]),
            "participated": self._participated.copy(),
        }

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Curator.restore`."""
        rows = state["history"].tolist()
        self._history = tuple((noise, rate, int(count)) for noise, rate, count in rows)
        self._clip_norm = float(state["clip_norm"][0])
        self._participated = np.array(state["participated"], np.int64)

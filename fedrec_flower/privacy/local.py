"""Differential privacy without a trusted server: every client adds noise to what it sends.

Sources: Duchi, Jordan and Wainwright 2013, "Local privacy and statistical minimax rates"; Dwork
and Roth 2014, "The algorithmic foundations of differential privacy", sections 3.3 (Laplace) and
A.1 (Gauss). Two updates of any two users may be two clip norms apart: that is what noise must hide.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf, isinf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.privacy.accounting import (
    accountant,
    default_delta,
    epsilon_of,
    noise_multiplier_for,
)
from fedrec_flower.privacy.clipping import clipped
from fedrec_flower.privacy.ledger import NO_LEDGER, Account, Ledger
from fedrec_flower.privacy.mechanism import Curator, NoPrivacy, State
from fedrec_flower.privacy.noise import Chance, Source, laplace
from fedrec_flower.privacy.requirements import (
    Circumstances,
    Unit,
    Way,
    check_budget,
    check_clipping,
    check_cost,
    require_sum_alone,
    require_unit,
)
from fedrec_flower.privacy.statement import about_noise, before_this_run, outside

_APART = 2.0  # clip norms between the updates of any two clients, at most


@dataclass(frozen=True)
class LocalDP(NoPrivacy):
    """Whoever sees a client's messages learns little about it; nobody need be trusted.

    Attributes:
        mechanism: "gaussian" bounds the L2 norm, "laplace" the L1 norm, for which delta is 0.
        clip_norm: no client sends a longer update, before noise; in units of the parameters.
        clipping: as in `CentralDP`.
        noise_multiplier: standard deviation (Laplace: scale) of each client's noise on every
            value it sends, in clip norms; None if it follows from `target_epsilon`.
        target_epsilon: what a client that takes part in every round spends; infinity: no noise.
        delta: see `CentralDP`; of the Gaussian mechanism.
        unit: what is protected, as in `CentralDP`.

    Raises:
        ConfigError: if a value is impossible.
    """

    mechanism: Literal["gaussian", "laplace"]
    clip_norm: float
    clipping: Literal["flat", "per_tensor"]
    noise_multiplier: float | None
    target_epsilon: float | None
    delta: float | None
    unit: Unit

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        check_budget(self.noise_multiplier, self.target_epsilon, self.delta)
        check_clipping(self.clip_norm, self.noise_multiplier, self.target_epsilon)

    @property
    def guarantees(self) -> bool:
        """See `NoPrivacy.guarantees`."""
        return True

    @property
    def trusts_server(self) -> bool:
        """See `NoPrivacy.trusts_server`."""
        return False

    @property
    def draws(self) -> bool:
        """See `NoPrivacy.draws`."""
        return True

    @property
    def hides_rows(self) -> bool:
        """See `NoPrivacy.hides_rows`: noise goes on every row."""
        return True

    @property
    def noise_scale(self) -> float:
        """Standard deviation, or scale, of a client's noise in units of the parameters."""
        return self.noise_multiplier * self.clip_norm if self.noise_multiplier else 0.0

    def check(self, run: Circumstances, way: Way) -> None:
        """See `NoPrivacy.check`."""
        require_unit(self.unit, run)
        require_sum_alone(way)
        require(
            not run.statistics,
            f"noise on every statistic of every user leaves nothing of model={run.model}: choose "
            "privacy=randomized_response, or a model that is trained by gradients",
        )

    def most_weight(self, most_examples: int, most_users: int) -> float:
        """See `NoPrivacy.most_weight`; every update weighs 1, statistics as many as their users."""
        del most_examples
        return float(most_users)

    def settle(self, run: Circumstances) -> Mapping[str, Any]:
        """See `NoPrivacy.settle`; a client may be asked in every round."""
        delta = default_delta(run.num_clients) if self.delta is None else self.delta
        multiplier, target, rounds = self.noise_multiplier, self.target_epsilon, run.num_rounds
        if target is not None and self.mechanism == "gaussian":
            multiplier = _APART * noise_multiplier_for(target, delta, 1.0, rounds)
        elif target is not None:
            multiplier = 0.0 if isinf(target) else _APART * rounds / target
        check_cost((multiplier or 0.0) / _APART, delta, rounds)
        return {"noise_multiplier": multiplier, "target_epsilon": None, "delta": delta}

    def epsilon(self, times: int) -> float:
        """What a client has spent that took part so many times; of a settled configuration.

        Laplace noise costs two clip norms over its scale each time, and pure costs add up.
        """
        multiplier = self.noise_multiplier or 0.0
        if self.mechanism == "gaussian":
            return epsilon_of(((multiplier / _APART, 1.0, times),), self.delta or 0.0)
        return times * _APART / multiplier if multiplier else inf

    def curator(
        self, run: Circumstances, chance: Chance, ledger: Ledger = NO_LEDGER
    ) -> "LocalCurator":
        """See `NoPrivacy.curator`; of a settled configuration."""
        return LocalCurator(self, run, chance, ledger)

    def apply(self, updates: Updates, tables: Collection[str], clip_norm: float) -> Updates:
        """See `NoPrivacy.apply`; the bound is the client's own, whatever the server says."""
        del clip_norm
        order = 2 if self.mechanism == "gaussian" else 1
        per_tensor = self.clipping == "per_tensor"
        return clipped(updates, tables, self.clip_norm, per_tensor=per_tensor, order=order)

    def add_noise(
        self,
        total: UpdateSum,
        clients: NDArray[np.int64],
        round_: int,
        chance: Chance,
        attempt: int = 0,
    ) -> None:
        """See `NoPrivacy.add_noise`; each attempt has noise of its own, seeded or not.

        The difference of two messages with the same noise would be free of it.
        """
        role = f"local-noise/{attempt}" if attempt else "local-noise"
        for client in clients if self.noise_scale else ():
            source = chance.source(role, round_, int(client))
            for name, value in total.tensors.items():
                total.tensors[name] += self.noise_scale * self._drawn(source, value.shape)

    def _drawn(self, source: Source, shape: tuple[int, ...]) -> NDArray[np.float64]:
        if self.mechanism == "gaussian":
            return source.normal(shape)
        return laplace(source, shape)


class LocalCurator(Curator):
    """Adds up what is private already, and counts how often each client has spoken.

    Args:
        privacy: the mechanism, settled.
        run: the run.
        chance: where noise comes from, to be told.
        ledger: where the account is kept; it counts messages that a checkpoint has lost.
    """

    def __init__(
        self, privacy: LocalDP, run: Circumstances, chance: Chance, ledger: Ledger
    ) -> None:
        self._privacy, self._run, self._chance, self._ledger = privacy, run, chance, ledger
        self._participated = np.zeros(run.num_clients, np.int64)
        if (account := ledger.read()) is not None:
            self._take(account)

    @property
    def hides_losses(self) -> bool:
        """See `Curator.hides_losses`."""
        return True

    @property
    def is_spent(self) -> bool:
        """See `Curator.is_spent`: whether no client is left that may be asked."""
        return not self._may_be_asked.any()

    @property
    def epsilon(self) -> float:
        """What the client has spent that was asked most often."""
        most = int(self._participated.max(initial=0))
        return (self._privacy.epsilon(most) if most else 0.0) + self._ledger.before.epsilon

    @property
    def delta(self) -> float:
        """The probability that the guarantee of `epsilon` leaves out."""
        own = self._privacy.delta if self._privacy.mechanism == "gaussian" else 0.0
        return (own or 0.0) + self._ledger.before.delta

    @property
    def _may_be_asked(self) -> NDArray[np.bool_]:
        """Which clients have budget left: the noise suffices for one message a round."""
        if isinf(self._ledger.budget):
            return np.ones(len(self._participated), bool)
        return self._participated < self._run.num_rounds

    def cohort(self, sampled: NDArray[np.int64], round_: int) -> NDArray[np.int64]:
        """See `Curator.cohort`; a client that is asked counts as one that answered.

        A client whose budget is spent is not asked, however often rounds are tried again.
        """
        del round_
        asked = sampled[self._may_be_asked[sampled]]
        self._participated[asked] += 1
        self._ledger.write(self.state())
        return asked

    def figures(self) -> dict[str, float]:
        """See `Curator.figures`."""
        return {"epsilon": self.epsilon, "delta": self.delta}

    def facts(self) -> dict[str, Any]:
        """See `Curator.facts`."""
        privacy, gaussian = self._privacy, self._privacy.mechanism == "gaussian"
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "privacy": {
                "mechanism": f"local differential privacy, {privacy.mechanism} noise",
                "unit": privacy.unit,
                "neighbours": f"one {privacy.unit}'s data are replaced by any other",
                "accountant": accountant(1.0) if gaussian else "epsilons of messages add up",
                "noise_multiplier": privacy.noise_multiplier,
                "clip_norm": privacy.clip_norm,
                "most_messages_of_a_client": int(self._participated.max(initial=0)),
                **before_this_run(self._ledger.before),
                "noise": about_noise(self._chance),
                "covers": "every update that a client sends, even if the server is not trusted, "
                "and all that is computed from them; epsilon is that of the client asked most",
                "does_not_cover": outside(
                    self._run, trusts_server=False, before=self._ledger.before.does_not_cover
                ),
            },
        }

    def state(self) -> State:
        """See `Curator.state`."""
        return {"participated": self._participated.copy()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """See `Curator.restore`."""
        self._take(self._ledger.resumed(state))

    def _take(self, account: Account) -> None:
        self._participated = np.array(account["participated"], np.int64)

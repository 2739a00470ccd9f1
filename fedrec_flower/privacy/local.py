"""Local differential privacy: every client adds noise to its update; no server is trusted.

The noise must hide a difference of two clip norms, the largest distance between two updates.

Sources: Duchi, Jordan and Wainwright 2013, "Local privacy and statistical minimax rates"; Dwork
and Roth 2014, "The algorithmic foundations of differential privacy", sections 3.3 (Laplace) and
A.1 (Gauss).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import inf, isinf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Arrays, BoolArray, Float64Array, IndexArray
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.privacy.accounting import (
    accountant,
    default_delta,
    epsilon_of,
    noise_multiplier_for,
)
from fedrec_flower.privacy.clipping import clip_updates
from fedrec_flower.privacy.ledger import NO_LEDGER, Account, Ledger
from fedrec_flower.privacy.mechanism import PrivacyMechanism, ServerMechanism
from fedrec_flower.privacy.noise import NoiseSource, NoiseStream, laplace
from fedrec_flower.privacy.requirements import (
    AggregationFacts,
    RunFacts,
    Unit,
    check_budget,
    check_clipping,
    check_cost,
    require_sum_alone,
    require_unit,
)
from fedrec_flower.privacy.statement import (
    initial_guarantee,
    local_scope,
    noise_origin,
    not_covered,
)

_SENSITIVITY = 2.0  # largest distance between the updates of two clients, in clip norms


@dataclass(frozen=True)
class LocalDP(PrivacyMechanism):
    """Local differential privacy: the messages of a client are protected; no server is trusted.

    Attributes:
        mechanism: "gaussian" bounds the L2 norm; "laplace" bounds the L1 norm, and its delta is 0.
        clip_norm: largest norm of a client's update before noise, in units of the parameters.
        clipping: see `CentralDP`.
        noise_multiplier: standard deviation (Laplace: scale) of a client's noise on every value
            that it sends / clip_norm; None if it follows from `target_epsilon`.
        target_epsilon: the epsilon of a client that takes part in every round; infinity for no
            noise.
        delta: delta of the Gaussian mechanism; see `CentralDP`.
        unit: the protected unit; see `CentralDP`.

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
        """Validate the values."""
        check_budget(self.noise_multiplier, self.target_epsilon, self.delta)
        check_clipping(self.clip_norm, self.noise_multiplier, self.target_epsilon)

    @property
    @override
    def has_guarantee(self) -> bool:
        return True

    @property
    @override
    def trusts_server(self) -> bool:
        return False

    @property
    @override
    def is_random(self) -> bool:
        return True

    @property
    @override
    def hides_rows(self) -> bool:
        """True, because noise is added to every row."""
        return True

    @property
    def noise_scale(self) -> float:
        """Standard deviation (Laplace: scale) of a client's noise, in units of the parameters."""
        return self.noise_multiplier * self.clip_norm if self.noise_multiplier else 0.0

    @override
    def check(self, run: RunFacts, aggregation: AggregationFacts) -> None:
        require_unit(self.unit, run)
        require_sum_alone(aggregation)
        require(
            not run.statistics,
            f"noise on every statistic of every user makes model={run.model} useless: choose "
            "privacy=randomized_response, or a model that is trained by gradients",
        )

    @override
    def max_weight(self, max_examples: int, max_users: int) -> float:
        """Every update has weight 1; statistics have the number of their users."""
        return float(max_users)

    @override
    def resolve(self, run: RunFacts) -> Mapping[str, Any]:
        """A client may be sampled in every round."""
        delta = default_delta(run.num_clients) if self.delta is None else self.delta
        multiplier = self.noise_multiplier
        target = self.target_epsilon
        rounds = run.num_rounds
        if target is not None and self.mechanism == "gaussian":
            multiplier = _SENSITIVITY * noise_multiplier_for(target, delta, 1.0, rounds)
        elif target is not None:
            multiplier = 0.0 if isinf(target) else _SENSITIVITY * rounds / target
        check_cost((multiplier or 0.0) / _SENSITIVITY, delta, rounds)
        return {"noise_multiplier": multiplier, "target_epsilon": None, "delta": delta}

    def epsilon(self, times: int) -> float:
        """The epsilon of a client after a number of messages; all values must be set.

        One message with Laplace noise costs 2 * clip_norm / scale, and these costs add up.

        Args:
            times: number of rounds in which the client took part.
        """
        multiplier = self.noise_multiplier or 0.0
        if self.mechanism == "gaussian":
            return epsilon_of(((multiplier / _SENSITIVITY, 1.0, times),), self.delta or 0.0)
        return times * _SENSITIVITY / multiplier if multiplier else inf

    @override
    def server_mechanism(
        self, run: RunFacts, noise_source: NoiseSource, ledger: Ledger = NO_LEDGER
    ) -> "LocalDPServer":
        """The mechanism must have all values set."""
        return LocalDPServer(self, run, noise_source, ledger)

    @override
    def apply(self, updates: Updates, tables: Collection[str], clip_norm: float) -> Updates:
        """Clip by `self.clip_norm`; the bound that the server sends is not used."""
        order = 2 if self.mechanism == "gaussian" else 1
        per_tensor = self.clipping == "per_tensor"
        return clip_updates(updates, tables, self.clip_norm, per_tensor=per_tensor, order=order)

    @override
    def add_noise(
        self,
        total: UpdateSum,
        clients: IndexArray,
        round_: int,
        noise_source: NoiseSource,
        attempt: int = 0,
    ) -> None:
        """Add noise that is different in each attempt, seeded or not.

        The difference of two messages with the same noise would have no noise.
        """
        role = f"local-noise/{attempt}" if attempt else "local-noise"
        for client in clients if self.noise_scale else ():
            source = noise_source.stream(role, round_, int(client))
            for name, value in total.tensors.items():
                total.tensors[name] += self.noise_scale * self._drawn(source, value.shape)

    def _drawn(self, source: NoiseStream, shape: tuple[int, ...]) -> Float64Array:
        if self.mechanism == "gaussian":
            return source.normal(shape)
        return laplace(source, shape)


class LocalDPServer(ServerMechanism):
    """Adds up private updates, and counts the messages of each client.

    Args:
        privacy: the mechanism, with all values set.
        run: facts of the run.
        noise_source: source of the noise, for the summary.
        ledger: stores the account; it also counts messages after the last checkpoint.
    """

    def __init__(
        self, privacy: LocalDP, run: RunFacts, noise_source: NoiseSource, ledger: Ledger
    ) -> None:
        self._privacy = privacy
        self._run = run
        self._noise_source = noise_source
        self._ledger = ledger
        self._participated = np.zeros(run.num_clients, np.int64)
        if (account := ledger.read()) is not None:
            self._load(account)

    @property
    @override
    def hides_losses(self) -> bool:
        return True

    @property
    @override
    def is_spent(self) -> bool:
        """Whether no client has budget left."""
        return not self._has_budget.any()

    @property
    def epsilon(self) -> float:
        """The epsilon of the client that was sampled most often, plus that of the initial model."""
        most = int(self._participated.max(initial=0))
        epsilon = self._privacy.epsilon(most) if most else 0.0
        return epsilon + self._ledger.initial.epsilon

    @property
    def delta(self) -> float:
        """The delta of the guarantee, including that of the initial model."""
        delta = (self._privacy.delta or 0.0) if self._privacy.mechanism == "gaussian" else 0.0
        return delta + self._ledger.initial.delta

    @property
    def _has_budget(self) -> BoolArray:
        """Bool (num_clients,): clients with fewer than num_rounds messages, if there is a limit."""
        if isinf(self._ledger.budget):
            return np.ones(len(self._participated), bool)
        return self._participated < self._run.num_rounds

    @override
    def cohort(self, sampled: IndexArray, round_: int) -> IndexArray:
        """The sampled clients that have budget left; each of them is counted as having replied.

        A client without budget is never sampled, even if rounds are repeated many times.
        """
        cohort = sampled[self._has_budget[sampled]]
        self._participated[cohort] += 1
        self._ledger.write(self.state())
        return cohort

    @override
    def round_metrics(self) -> dict[str, float]:
        return {"epsilon": self.epsilon, "delta": self.delta}

    @override
    def facts(self) -> dict[str, Any]:
        privacy = self._privacy
        gaussian = privacy.mechanism == "gaussian"
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "privacy": {
                **local_scope(privacy.mechanism, privacy.unit),
                "unit": privacy.unit,
                "accountant": accountant(1.0) if gaussian else "epsilons of messages add up",
                "noise_multiplier": privacy.noise_multiplier,
                "clip_norm": privacy.clip_norm,
                "most_messages_of_a_client": int(self._participated.max(initial=0)),
                **initial_guarantee(self._ledger.initial),
                "noise": noise_origin(self._noise_source),
                "does_not_cover": not_covered(
                    self._run, trusts_server=False, initial=self._ledger.initial.does_not_cover
                ),
            },
        }

    @override
    def state(self) -> Arrays:
        return {"participated": self._participated.copy()}

    @override
    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        self._load(self._ledger.resumed(state))

    def _load(self, account: Account) -> None:
        self._participated = np.array(account["participated"], np.int64)

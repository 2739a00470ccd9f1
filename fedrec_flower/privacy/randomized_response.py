"""Local differential privacy for sums: every user lies about every item with a known probability.

Each user keeps some of its items at most, and tells of every item of the catalogue whether it had
it, flipped with probability 1 / (1 + exp(epsilon / (2 max_items))). Two users' kept items differ in
2 max_items answers at most, so their reports differ by a factor exp(epsilon) at most. The server
knows the probability, and takes the lies off its sums on average.

Sources: Warner 1965; Erlingsson, Pihur and Korolova 2014 (RAPPOR), its one-time response.
"""

from dataclasses import dataclass, replace
from math import exp, isinf, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import require
from fedrec_flower.prepared import ClientData, Columns, starts
from fedrec_flower.privacy.chance import Chance
from fedrec_flower.privacy.circumstances import (
    Circumstances,
    Way,
    require_statistics,
    require_sum_alone,
)
from fedrec_flower.privacy.curator import Curator
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.none import NoPrivacy
from fedrec_flower.privacy.wording import about_noise, outside


@dataclass(frozen=True)
class RandomizedResponse(NoPrivacy):
    """Users who may always claim that an answer was a lie, to exact models alone.

    Attributes:
        epsilon: what a user spends; infinity: no lies.
        max_items: items that a user keeps at most, drawn at random.

    Raises:
        ConfigError: if a value is impossible.
    """

    epsilon: float
    max_items: int

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require(self.epsilon > 0, f"privacy.epsilon must be above 0: {self.epsilon}")
        require(self.max_items >= 1, f"privacy.max_items must be at least 1: {self.max_items}")

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
    def flip_rate(self) -> float:
        """The probability that an answer is a lie, below 1/2."""
        return 0.0 if isinf(self.epsilon) else 1 / (1 + exp(self.epsilon / (2 * self.max_items)))

    def check(self, run: Circumstances, way: Way) -> None:
        """See `NoPrivacy.check`."""
        require_sum_alone(way)
        require_statistics(run)
        require(
            run.statistics,
            f"model={run.model} is trained by gradients, which are no answers to be flipped: "
            "choose privacy=local_dp",
        )
        require(
            run.num_rounds <= 1,
            f"num_rounds={run.num_rounds} would have users answer again, and averages betray who "
            "lies anew each time: set num_rounds=1",
        )

    def curator(
        self, run: Circumstances, chance: Chance, ledger: Ledger = NO_LEDGER
    ) -> "ResponseCurator":
        """See `NoPrivacy.curator`; a user answers once, which needs no ledger."""
        del ledger
        return ResponseCurator(self, run, chance)

    def disguise(self, data: ClientData, num_items: int, chance: Chance) -> ClientData:
        """See `NoPrivacy.disguise`; the history that its users' answers make."""
        cuts, item = data.train.offsets, data.train.item
        told = [
            self._answers(item[cuts[user] : cuts[user + 1]], num_items, chance, data.first + user)
            for user in range(data.num_users)
        ]
        answered = np.concatenate([np.zeros(0, np.int32), *told])
        return replace(data, train=Columns(starts([len(own) for own in told]), answered, None))

    def _answers(
        self, item: NDArray[np.int32], num_items: int, chance: Chance, user: int
    ) -> NDArray[np.int32]:
        source, had = chance.source("randomized-response", client=user), np.zeros(num_items, bool)
        distinct = np.unique(item)
        had[distinct[np.argsort(source.uniform((len(distinct),)))[: self.max_items]]] = True
        lies = source.uniform((num_items,)) < self.flip_rate
        return np.flatnonzero(had ^ lies).astype(np.int32)


class ResponseCurator(Curator):
    """Knows the rate of lies; the model takes them off its sums.

    Args:
        privacy: the mechanism.
        run: the run.
        chance: where lies come from, to be told.
    """

    def __init__(self, privacy: RandomizedResponse, run: Circumstances, chance: Chance) -> None:
        self._privacy, self._run, self._chance = privacy, run, chance

    @property
    def hides_losses(self) -> bool:
        """See `Curator.hides_losses`."""
        return True

    @property
    def flip_rate(self) -> float:
        """See `Curator.flip_rate`."""
        return self._privacy.flip_rate

    @property
    def noise_std(self) -> float:
        """See `Curator.noise_std`; of the number of users of two items, lies taken off."""
        lie = self.flip_rate
        return sqrt(self._run.clients_per_round) * lie * (1 - lie) / (1 - 2 * lie) ** 2

    def figures(self) -> dict[str, float]:
        """See `Curator.figures`."""
        return {"epsilon": self._privacy.epsilon}

    def facts(self) -> dict[str, Any]:
        """See `Curator.facts`."""
        return {
            "epsilon": self._privacy.epsilon,
            "delta": 0.0,
            "privacy": {
                "mechanism": "local differential privacy, randomised response",
                "unit": "user",
                "neighbours": "one user's history is replaced by any other",
                "accountant": "one report per user, bounded as its definition says",
                "flip_rate": self.flip_rate,
                "max_items": self._privacy.max_items,
                "noise": about_noise(self._chance),
                "covers": "every report of a user, even if the server is not trusted, and all that "
                "is computed from it",
                "does_not_cover": outside(self._run, trusts_server=False),
            },
        }

"""Local differential privacy for sums: every answer of a user is flipped with a known probability.

Each user keeps at most `max_items` of its items, drawn at random, and answers for every item of the
catalogue whether it kept it. Each answer is flipped with probability
1 / (1 + exp(epsilon / (2 max_items))). The kept items of two users differ in at most 2 max_items
answers, so the probabilities of their reports differ by at most a factor exp(epsilon). The server
knows the flip probability and the number of users, and debiases its sums.

A user's report is a function of its history and of a secret of its node. It is therefore the same
in every retry and in a resumed run, and costs epsilon once (RAPPOR's permanent randomized
response). A deployed node keeps one secret for all runs, whose reports are then the same. Every
simulation with randomness=private draws a secret of its own: its reports have independent flips and
cost epsilon again, as do those of another history, epsilon, max_items or catalogue.

A report is dense: a user sends what num_items answers make, and its node computes the statistics
of flip_rate * num_items items instead of the few that the user had. For co-occurrences this is
num_items^2 operations a user.

Sources: Warner 1965; Erlingsson, Pihur and Korolova 2014 (RAPPOR), section 2.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from math import exp, isinf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.mechanism import Curator, NoPrivacy
from fedrec_flower.privacy.noise import Chance
from fedrec_flower.privacy.requirements import (
    Circumstances,
    Way,
    require_statistics,
    require_sum_alone,
)
from fedrec_flower.privacy.statement import about_lasting, outside


@dataclass(frozen=True)
class RandomizedResponse(NoPrivacy):
    """Randomized response of users about items, for exact models alone.

    Attributes:
        epsilon: spent by a user; infinity: no answer is flipped.
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
    def hides_rows(self) -> bool:
        """See `NoPrivacy.hides_rows`; every user answers about every item."""
        return True

    @property
    def answers_all(self) -> bool:
        """See `NoPrivacy.answers_all`."""
        return True

    def most_weight(self, most_examples: int, most_users: int) -> float:
        """See `NoPrivacy.most_weight`; reports weigh one each, and how many there are is public."""
        del most_examples
        return float(most_users)

    @property
    def flip_rate(self) -> float:
        """The probability that an answer is flipped, below 1/2."""
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
        had, distinct = np.zeros(num_items, np.bool_), np.unique(item)
        source = chance.lasting(self._role(distinct, num_items), user)
        had[distinct[np.argsort(source.uniform((len(distinct),)))[: self.max_items]]] = True
        flipped = source.uniform((num_items,)) < self.flip_rate
        return np.flatnonzero(had ^ flipped).astype(np.int32)

    def _role(self, item: NDArray[np.int32], num_items: int) -> str:
        """Where a report's draws come from: reports with anything different share no draw.

        Two reports made with the same draws would tell by their differences where the histories
        differ, or which answers were flipped.
        """
        history = blake2b(item.astype("<i4").tobytes(), digest_size=16).hexdigest()
        return f"randomized-response/{self.epsilon!r}/{self.max_items}/{num_items}/{history}"


class ResponseCurator(Curator):
    """Knows the probability of a flip, by which the model debiases its sums.

    Args:
        privacy: the mechanism.
        run: the run.
        chance: where flips come from, for the summary.
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

    def figures(self) -> dict[str, float]:
        """See `Curator.figures`."""
        return {"epsilon": self._privacy.epsilon, "delta": 0.0}

    def facts(self) -> dict[str, Any]:
        """See `Curator.facts`."""
        return {
            "epsilon": self._privacy.epsilon,
            "delta": 0.0,
            "privacy": {
                "mechanism": "local differential privacy, randomised response",
                "unit": "user",
                "neighbours": "one user's history is replaced by any other",
                "accountant": "one report per user in a run, the same in retries and resumed runs",
                "flip_rate": self.flip_rate,
                "max_items": self._privacy.max_items,
                "noise": about_lasting(self._chance),
                "covers": "every report of a user, even if the server is not trusted, and all that "
                "is computed from it",
                "does_not_cover": outside(self._run, trusts_server=False),
            },
        }

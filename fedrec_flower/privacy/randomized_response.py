"""Randomized response: local differential privacy for sums, by flipping each answer of a user.

Each user keeps at most `max_items` of its items, drawn at random, and answers for every item of the
catalogue whether it kept it. Each answer is flipped with probability
1 / (1 + exp(epsilon / (2 max_items))). The kept items of two users differ in at most 2 max_items
answers, so the probabilities of their reports differ by at most a factor exp(epsilon). The server
has the flip probability and the number of users, and debiases its sums.

A user's report is a function of its history and of a secret of its node. It is therefore the same
in every retry and in a resumed run, and costs epsilon once (RAPPOR's permanent randomized
response). A deployed node keeps one secret for all runs, so its reports are the same in all of
them. Every simulation with randomness=private draws a new secret: its reports have independent
flips and cost epsilon again, as do the reports of another history, epsilon, max_items or catalogue.

A report is dense: a user sends the statistics of num_items answers, and its node computes the
statistics of about flip_rate * num_items items instead of the user's few. For co-occurrences this
is num_items^2 operations per user.

Sources: Warner 1965; Erlingsson, Pihur and Korolova 2014 (RAPPOR), section 2.
"""

from dataclasses import dataclass, replace
from hashlib import blake2b
from math import exp, isinf
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.mechanism import PrivacyMechanism, ServerMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.requirements import (
    AggregationFacts,
    RunFacts,
    require_statistics,
    require_sum_alone,
)
from fedrec_flower.privacy.statement import (
    not_covered,
    persistent_noise_origin,
    randomized_response_scope,
)


@dataclass(frozen=True)
class RandomizedResponse(PrivacyMechanism):
    """Randomized response of users about items, for closed-form models only.

    Attributes:
        epsilon: epsilon of a user's report; infinity means that no answer is flipped.
        max_items: the largest number of items that a user keeps, drawn at random.

    Raises:
        ConfigError: if a value is impossible.
    """

    epsilon: float
    max_items: int

    def __post_init__(self) -> None:
        """Validate the values."""
        require(self.epsilon > 0, f"privacy.epsilon must be above 0: {self.epsilon}")
        require(self.max_items >= 1, f"privacy.max_items must be at least 1: {self.max_items}")

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
        """True, because every user answers for every item."""
        return True

    @property
    @override
    def has_dense_histories(self) -> bool:
        return True

    @override
    def max_weight(self, max_examples: int, max_users: int) -> float:
        """Every report has weight 1, and the number of reports is public."""
        return float(max_users)

    @property
    def flip_rate(self) -> float:
        """The probability that an answer is flipped, below 1/2."""
        return 0.0 if isinf(self.epsilon) else 1 / (1 + exp(self.epsilon / (2 * self.max_items)))

    @override
    def check(self, run: RunFacts, aggregation: AggregationFacts) -> None:
        require_sum_alone(aggregation)
        require_statistics(run)
        require(
            run.statistics,
            f"model={run.model} is trained by gradients, and randomized response needs yes/no "
            "answers: choose privacy=local_dp",
        )
        require(
            run.num_rounds <= 1,
            f"num_rounds={run.num_rounds} would repeat the answers of users with new flips, and "
            "their average reveals the true answers: set num_rounds=1",
        )

    @override
    def server_mechanism(
        self, run: RunFacts, noise_source: NoiseSource, ledger: Ledger = NO_LEDGER
    ) -> "RandomizedResponseServer":
        """The ledger is not used, because a user answers once."""
        return RandomizedResponseServer(self, run, noise_source)

    @override
    def training_data(
        self, data: ClientData, num_items: int, noise_source: NoiseSource
    ) -> ClientData:
        """The client's data with the users' reports as histories."""
        offsets = data.train.offsets
        reports = []
        for user in range(data.num_users):
            item = data.train.item[offsets[user] : offsets[user + 1]]
            reports.append(self._report(item, num_items, noise_source, data.first + user))
        items = np.concatenate([np.zeros(0, np.int32), *reports])
        return replace(data, train=Columns(starts([len(r) for r in reports]), items, None))

    def _report(
        self, item: NDArray[np.int32], num_items: int, noise_source: NoiseSource, user: int
    ) -> NDArray[np.int32]:
        """The items that one user reports after flipping, ascending."""
        distinct = np.unique(item)
        source = noise_source.persistent_stream(self._role(distinct, num_items), user)
        kept = distinct[np.argsort(source.uniform((len(distinct),)))[: self.max_items]]
        answers = np.zeros(num_items, np.bool_)
        answers[kept] = True
        is_flipped = source.uniform((num_items,)) < self.flip_rate
        return np.flatnonzero(answers ^ is_flipped).astype(np.int32)

    def _role(self, item: NDArray[np.int32], num_items: int) -> str:
        """The role of a report's draws; two different reports share no draws.

        The difference of two reports with the same draws would reveal where the histories differ,
        or which answers were flipped.
        """
        history = blake2b(item.astype("<i4").tobytes(), digest_size=16).hexdigest()
        return f"randomized-response/{self.epsilon!r}/{self.max_items}/{num_items}/{history}"


class RandomizedResponseServer(ServerMechanism):
    """Gives the flip probability, with which the model debiases its sums.

    Args:
        privacy: the mechanism.
        run: facts of the run.
        noise_source: source of the flips, for the summary.
    """

    def __init__(
        self, privacy: RandomizedResponse, run: RunFacts, noise_source: NoiseSource
    ) -> None:
        self._privacy = privacy
        self._run = run
        self._noise_source = noise_source

    @property
    @override
    def hides_losses(self) -> bool:
        return True

    @property
    @override
    def flip_rate(self) -> float:
        return self._privacy.flip_rate

    @override
    def round_metrics(self) -> dict[str, float]:
        return {"epsilon": self._privacy.epsilon, "delta": 0.0}

    @override
    def facts(self) -> dict[str, Any]:
        return {
            "epsilon": self._privacy.epsilon,
            "delta": 0.0,
            "privacy": {
                **randomized_response_scope(),
                "unit": "user",
                "flip_rate": self.flip_rate,
                "max_items": self._privacy.max_items,
                "noise": persistent_noise_origin(self._noise_source),
                "does_not_cover": not_covered(self._run, trusts_server=False),
            },
        }

"""Ranking the catalogue for each user: full ranking, and the field's sampled protocol beside it.

Candidates are all items the user has not in train (nor in validation, when test is scored). The
sampled protocol ranks against `num_negatives` items the user never interacted with; its metrics
carry the suffix `_99neg`, because they compare with no full ranking (Krichene and Rendle 2020).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import ConfigError
from fedrec_flower.evaluation.base import Evaluation, Values, require_at_least
from fedrec_flower.evaluation.ranks import rank_held_out
from fedrec_flower.evaluation.scores import Scores, concatenate, recommend, score_in_batches
from fedrec_flower.interactions import Part
from fedrec_flower.metrics.ranking import Metric, Ranks, parse_metric
from fedrec_flower.models.base import Recommender
from fedrec_flower.prepared import ClientData, Columns
from fedrec_flower.seeding import generator


@dataclass(frozen=True, slots=True)
class RankingEvaluation:
    """The evaluation group for `task=ranking`; defaults live in its yaml.

    Attributes:
        metrics: names such as "hr@10" or "ndcg@10", computed under both protocols.
        num_negatives: items in the sampled protocol; 0 leaves the protocol out.
        top_k: length of the recommended lists in recommendations.csv.
        every: rounds between evaluations.
        num_clients: clients sampled for each evaluation; None for all.
        select_by: the validation metric that selects the round.
    """

    metrics: list[str]
    num_negatives: int
    top_k: int
    every: int
    num_clients: int | None
    select_by: str

    task: ClassVar[str] = "ranking"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse settings that no catalogue could meet."""
        require_at_least(self, num_negatives=0, top_k=1, every=1)

    def check(self, num_items: int) -> None:
        """Refuse a k above the catalogue, an unknown metric, a selection nobody computes."""
        cutoffs = [getattr(metric, "k", 1) for metric in self._parsed()]
        if max([*cutoffs, self.top_k]) > num_items:
            asked = max([*cutoffs, self.top_k])
            raise ConfigError(
                f"a metric or list of {asked} items was asked for, the catalogue has {num_items}: "
                "lower k in evaluation.metrics or evaluation.top_k"
            )
        known = [*self.metrics, *(m + self._suffix for m in self.metrics if self.num_negatives)]
        if self.select_by not in known:
            raise ConfigError(
                f"evaluation.select_by={self.select_by} is not computed; choose from {known}"
            )

    def finish(self, mean: float, standard_error: float, metric: str) -> tuple[float, float]:
        """A mean over users is the metric itself."""
        del metric
        return mean, standard_error

    def evaluate(
        self, model: Recommender, data: ClientData, num_items: int, seed: int
    ) -> Evaluation:
        """Rank the held-out items of each of the client's users.

        Args:
            model: holds the client's parameters: its users' rows, every item's row.
            data: the client's data.
            num_items: size of the catalogue.
            seed: the experiment's seed; draws the sampled negatives.

        Raises:
            TrainingError: if a score is not finite; names the client.
        """
        return concatenate(
            self._evaluate_users(data, users, scores, seed)
            for users, scores in score_in_batches(model, data, num_items)
        )

    def _evaluate_users(
        self, data: ClientData, users: slice, scores: Scores, seed: int
    ) -> Evaluation:
        train, validation, test = (
            part.slice(users.start, users.stop) for part in (data.train, data.validation, data.test)
        )
        negatives = self._negatives(data, users, scores.shape[1], seed)
        sampled = np.take_along_axis(scores, negatives, axis=1)
        scores[train.users(), train.item] = -np.inf
        on_validation, _ = self._values(scores, sampled, validation)
        scores[validation.users(), validation.item] = -np.inf
        on_test, ranks = self._values(scores, sampled, test)
        records = ranks | recommend(scores, self.top_k)
        return Evaluation({Part.VALIDATION: on_validation, Part.TEST: on_test}, records)

    def _values(
        self, scores: Scores, sampled: Scores, held_out: Columns
    ) -> tuple[Values, dict[str, NDArray[np.int64]]]:
        """Metric values per user under both protocols, and the rank of each held-out item."""
        user, values, ranks = held_out.users(), Values(), {}
        held_scores = scores[user, held_out.item]
        others = scores.copy()
        others[user, held_out.item] = -np.inf
        protocols = {"": others}
        if self.num_negatives:
            protocols[self._suffix] = sampled
        for suffix, pool in protocols.items():
            rank, order = rank_held_out(held_scores, user, pool)
            candidates = np.isfinite(pool).sum(axis=1) + np.diff(held_out.offsets)
            listed = Ranks(rank[order], held_out.offsets, candidates)
            values |= {metric.name + suffix: metric(listed) for metric in self._parsed()}
            ranks[f"per_test_rank{suffix or '_full'}"] = rank
        return values, ranks

    def _parsed(self) -> list[Metric]:
        return [parse_metric(name) for name in self.metrics]

    @property
    def _suffix(self) -> str:
        return f"_{self.num_negatives}neg"

    def _negatives(
        self, data: ClientData, users: slice, num_items: int, seed: int
    ) -> NDArray[np.int64]:
        """int64 (num_users, num_negatives): items each user never interacted with, distinct."""
        rows = [self._draw(data, user, num_items, seed) for user in range(users.start, users.stop)]
        return np.array(rows, np.int64).reshape(len(rows), self.num_negatives)

    def _draw(self, data: ClientData, user: int, num_items: int, seed: int) -> NDArray[np.int64]:
        """Draw once per user and experiment, by rejection, whose cost no catalogue raises."""
        code = int(data.user_codes[user])
        parts = (data.train, data.validation, data.test)
        known = np.concatenate([part.slice(user, user + 1).item for part in parts])
        if num_items - len(known) < self.num_negatives:
            raise ConfigError(
                f"user code {code} has only {num_items - len(known)} items left to rank against, "
                f"evaluation.num_negatives asks for {self.num_negatives}: lower it (0 for none)"
            )
        rng = generator(seed, "evaluation-negatives", 0, code)
        drawn = np.empty(0, np.int64)
        while len(drawn) < self.num_negatives:
            fresh = rng.integers(0, num_items, 2 * self.num_negatives)
            fresh = np.concatenate([drawn, fresh[~np.isin(fresh, known)]])
            drawn = fresh[np.sort(np.unique(fresh, return_index=True)[1])]
        return drawn[: self.num_negatives]

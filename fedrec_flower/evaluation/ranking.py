"""Evaluation of the ranking task: full ranking of the catalogue, and the sampled protocol.

Candidates are all items that are not in the user's training part (nor in validation, when test is
evaluated). The sampled protocol ranks against `num_negatives` items that the user never interacted
with. Its metrics have the suffix `_99neg`, because they cannot be compared with metrics of a full
ranking (Krichene and Rendle 2020).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.random import Seed
from fedrec_flower.core.ranges import NonNegativeInt, PositiveInt, check_fields
from fedrec_flower.core.types import IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Columns
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import (
    Evaluation,
    Records,
    Scorer,
    Scores,
    Values,
    limit_list_length,
)
from fedrec_flower.evaluation.metrics.base import RankingMetric, Ranks
from fedrec_flower.evaluation.metrics.registry import parse_metric
from fedrec_flower.evaluation.sampled_negatives import draw_negatives
from fedrec_flower.evaluation.scoring import (
    concatenate,
    finite_batches,
    rank_among,
    rank_held_out,
    recommend,
)

_RanksByProtocol = dict[tuple[Part, str], IndexArray]
"""(part, protocol) -> rank of each held-out item."""

_HISTORIES = ("train", "train_and_validation")


@dataclass(frozen=True, slots=True)
class RankingEvaluation:
    """`evaluation=ranking`; the defaults are in its yaml.

    Attributes:
        metrics: names such as "hr@10" or "ndcg@10" (see `metrics.registry`), computed under both
            protocols.
        num_negatives: number of negatives in the sampled protocol; 0 for no sampled protocol.
        top_k: length of the recommended lists in recommendations.csv.
        every: rounds between evaluations.
        num_clients: number of clients sampled for each evaluation; None for all.
        select_by: the validation metric that selects the released round.
        test_history: the history that models of histories are given when test is evaluated:
            "train", or "train_and_validation", as usual for sequential models. No parameter is
            trained on it.
    """

    metrics: list[str]
    num_negatives: NonNegativeInt
    top_k: PositiveInt
    every: PositiveInt
    num_clients: int | None
    select_by: str
    test_history: str

    task: ClassVar[str] = "ranking"
    higher_is_better: ClassVar[bool] = True
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields("evaluation", self)
        require(
            self.test_history in _HISTORIES,
            f"evaluation.test_history={self.test_history} is unknown; choose from {_HISTORIES}",
        )

    @property
    def names(self) -> list[str]:
        """Names of all metrics under all protocols."""
        return [m.name + protocol for protocol in self._protocols for m in self._parsed()]

    def fitted(self, num_items: int, max_seen_items: int) -> tuple["RankingEvaluation", list[str]]:
        """Remove the protocol and the metrics that the data cannot support.

        The sampled protocol is removed if a user has too few items left as negatives. A metric is
        removed if its k is larger than the catalogue.

        Raises:
            ConfigError: if no metric remains.
        """
        changed = self
        num_unseen = num_items - max_seen_items
        top_k, sentences = limit_list_length(self.top_k, num_items)
        if self.num_negatives > num_unseen:
            changed = replace(changed, num_negatives=0)
            sentences.append(
                f"the sampled metrics ({self._suffix}) are left out: the most active user leaves "
                f"{num_unseen} items to rank against; full ranking is not affected"
            )
        supported = [m.name for m in self._parsed() if getattr(m, "k", 1) <= num_items]
        if not supported:
            raise ConfigError(
                f"evaluation.metrics={self.metrics} are all at a k above the catalogue of "
                f"{num_items} items: lower k"
            )
        if dropped := [name for name in self.metrics if name not in supported]:
            changed = replace(changed, metrics=supported)
            sentences.append(
                f"{', '.join(dropped)} are left out: the catalogue has only {num_items} items"
            )
        if self.select_by in self.names and self.select_by not in changed.names:
            changed = replace(changed, select_by=changed.names[0])
            sentences.append(
                f"the round is selected by {changed.select_by}, not by {self.select_by}"
            )
        return replace(changed, top_k=top_k), sentences

    def check(self, num_items: int) -> None:  # noqa: ARG002
        """Check that all metrics exist and that the selecting metric is computed."""
        if self.select_by not in self.names:
            raise ConfigError(
                f"evaluation.select_by={self.select_by} is not computed; choose from {self.names}"
            )

    def max_values(self, held_out: Columns) -> IndexArray:
        """Return 1 for each user with held-out items, else 0; int64 (num_users,)."""
        return np.minimum(np.diff(held_out.offsets), 1)

    def finish(
        self,
        mean: float,
        standard_error: float,
        metric: str,  # noqa: ARG002
    ) -> tuple[float, float]:
        """Return the arguments: the metric is the mean over users."""
        return mean, standard_error

    def evaluate(
        self,
        scorer: Scorer,
        data: UserBatch,
        num_items: int,
        seed: Seed,
        *,
        lists: bool = True,
    ) -> Evaluation:
        """Rank the held-out items of each user.

        Args:
            scorer: scores the users.
            data: the users.
            num_items: size of the catalogue.
            seed: seed of the sampled negatives.
            lists: whether the records include recommended lists, which cost more passes.

        Raises:
            ConfigError: if a user has too few items for the sampled protocol; names the user.
            TrainingError: if a score is not finite; names the client.
        """
        if self.test_history == "train":
            return self._rank(scorer, data, num_items, seed, lists=lists)
        on_validation = self._rank(scorer, data, num_items, seed, lists=False).values
        on_test = self._rank(scorer, data.after_validation(), num_items, seed, lists=lists)
        validation = {Part.VALIDATION: on_validation[Part.VALIDATION]}
        return Evaluation(on_test.values | validation, on_test.records)

    def _rank(
        self, scorer: Scorer, data: UserBatch, num_items: int, seed: Seed, *, lists: bool
    ) -> Evaluation:
        """Rank the held-out items of both parts in one pass over the catalogue."""
        batches = [
            self._rank_users(data, users, scores, seed, lists=lists)
            for users, scores in finite_batches(scorer, data, num_items)
        ]
        ranks = concatenate([rank for rank, _ in batches])
        records = concatenate([recommended for _, recommended in batches])
        for protocol in self._protocols:
            records[f"per_test_rank{protocol or '_full'}"] = ranks[Part.TEST, protocol]
        candidates = num_items - np.diff(data.train.offsets)
        on_validation = self._values(Part.VALIDATION, data.validation, ranks, candidates)
        candidates -= np.diff(data.validation.offsets)
        on_test = self._values(Part.TEST, data.test, ranks, candidates)
        return Evaluation({Part.VALIDATION: on_validation, Part.TEST: on_test}, records)

    def _rank_users(
        self, data: UserBatch, users: slice, scores: Scores, seed: Seed, *, lists: bool
    ) -> tuple[_RanksByProtocol, Records]:
        """Rank the held-out items of some users."""
        train, validation, test = parts = [
            part.slice(users.start, users.stop) for part in (data.train, data.validation, data.test)
        ]
        ranks = {
            (Part.VALIDATION, ""): rank_held_out(scores, validation, [train]),
            (Part.TEST, ""): rank_held_out(scores, test, [train, validation]),
        }
        if self.num_negatives:
            negatives = draw_negatives(
                data.user_codes[users], parts, scores.shape[1], self.num_negatives, seed
            )
            for part, held_out in ((Part.VALIDATION, validation), (Part.TEST, test)):
                ranks[part, self._suffix] = rank_among(scores, held_out, negatives)
        # The test items may be recommended.
        return ranks, recommend(scores, [train, validation], self.top_k) if lists else {}

    def _values(
        self, part: Part, held_out: Columns, ranks: _RanksByProtocol, num_candidates: IndexArray
    ) -> Values:
        """Compute all metrics per user; `num_candidates` is the one of full ranking."""
        user = held_out.users()
        has_several = bool((np.diff(held_out.offsets) > 1).any())
        values = Values()
        for protocol in self._protocols:
            rank = ranks[part, protocol]
            if protocol:
                num_candidates = self.num_negatives + np.diff(held_out.offsets)
            ascending = rank[np.lexsort((rank, user))] if has_several else rank
            user_ranks = Ranks(ascending, held_out.offsets, num_candidates)
            values |= {metric.name + protocol: metric(user_ranks) for metric in self._parsed()}
        return values

    def _parsed(self) -> list[RankingMetric]:
        return [parse_metric(name) for name in self.metrics]

    @property
    def _suffix(self) -> str:
        return f"_{self.num_negatives}neg"

    @property
    def _protocols(self) -> list[str]:
        """Suffixes of the metrics of each protocol."""
        return ["", self._suffix] if self.num_negatives else [""]

"""Ranking the catalogue for each user: full ranking, and the field's sampled protocol beside it.

Candidates are all items the user has not in train (nor in validation, when test is scored). The
sampled protocol ranks against `num_negatives` items the user never interacted with; its metrics
carry the suffix `_99neg`, because they compare with no full ranking (Krichene and Rendle 2020).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.random import Seed
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.evaluation.base import Evaluation, Records, Values, require_at_least, shortened
from fedrec_flower.evaluation.metrics.ranking import Metric, Ranks, parse_metric
from fedrec_flower.evaluation.sampled_negatives import draw_negatives
from fedrec_flower.evaluation.scoring import (
    Scores,
    concatenate,
    rank_held_out,
    recommend,
    score_in_batches,
)
from fedrec_flower.models.abilities import HistoryBased, SideInformation
from fedrec_flower.models.base import Recommender

Ranked = dict[tuple[Part, str], NDArray[np.int64]]  # (part, protocol) -> rank of each item

_HISTORIES = ("train", "train_and_validation")


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
        test_history: what models that read histories read when test is scored: "train", or
            "train_and_validation", as the sequential literature has it. Nothing is learnt from it.
    """

    metrics: list[str]
    num_negatives: int
    top_k: int
    every: int
    num_clients: int | None
    select_by: str
    test_history: str

    task: ClassVar[str] = "ranking"
    higher_is_better: ClassVar[bool] = True
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse settings that no catalogue could meet."""
        require_at_least(self, num_negatives=0, top_k=1, every=1)
        require(
            self.test_history in _HISTORIES,
            f"evaluation.test_history={self.test_history} is unknown; choose from {_HISTORIES}",
        )

    @property
    def names(self) -> list[str]:
        """Every metric under both protocols."""
        return [m.name + protocol for protocol in self._protocols for m in self._parsed()]

    def fitted(self, num_items: int, max_seen_items: int) -> tuple["RankingEvaluation", list[str]]:
        """See `Evaluator.fitted`.

        One user with nearly all items, or a small catalogue, leaves the sampled protocol too few
        negatives: full ranking remains. A metric at a k above the catalogue is left out.

        Raises:
            ConfigError: if no metric remains.
        """
        changed, unknown = self, num_items - max_seen_items
        top_k, said = shortened(self.top_k, num_items)
        if self.num_negatives > unknown:
            changed = replace(changed, num_negatives=0)
            said.append(
                f"the sampled metrics ({self._suffix}) are left out: the most active user leaves "
                f"{unknown} items to rank against; full ranking is not affected"
            )
        short = [m.name for m in self._parsed() if getattr(m, "k", 1) <= num_items]
        if not short:
            raise ConfigError(
                f"evaluation.metrics={self.metrics} are all at a k above the catalogue of "
                f"{num_items} items: lower k"
            )
        if dropped := [name for name in self.metrics if name not in short]:
            changed = replace(changed, metrics=short)
            said.append(
                f"{', '.join(dropped)} are left out: the catalogue has {num_items} items alone"
            )
        if self.select_by in self.names and self.select_by not in changed.names:
            changed = replace(changed, select_by=changed.names[0])
            said.append(f"the round is selected by {changed.select_by}, not by {self.select_by}")
        return replace(changed, top_k=top_k), said

    def check(self, num_items: int) -> None:
        """Refuse an unknown metric, or a selection by a metric that is not computed."""
        del num_items
        if self.select_by not in self.names:
            raise ConfigError(
                f"evaluation.select_by={self.select_by} is not computed; choose from {self.names}"
            )

    def most_values(self, held_out: Columns) -> NDArray[np.int64]:
        """One of each user of whom anything is held out."""
        return np.minimum(np.diff(held_out.offsets), 1)

    def finish(self, mean: float, standard_error: float, metric: str) -> tuple[float, float]:
        """A mean over users is the metric itself."""
        del metric
        return mean, standard_error

    def evaluate(
        self,
        model: Recommender,
        data: ClientData,
        num_items: int,
        seed: Seed,
        *,
        lists: bool = True,
    ) -> Evaluation:
        """Rank the held-out items of each of the client's users.

        Args:
            model: holds the client's parameters: its users' rows, every item's row.
            data: the client's data.
            num_items: size of the catalogue.
            seed: what the sampled negatives follow from; see `seeding`.
            lists: whether the records hold the recommended lists, which cost more passes.

        Raises:
            ConfigError: if a user has too few items left for the sampled protocol; names the user.
            TrainingError: if a score is not finite; names the client.
        """
        if self.test_history == "train":
            return self._rank(model, data, num_items, seed, lists=lists)
        on_validation = self._rank(model, data, num_items, seed, lists=False).values
        later = data.after_validation()
        if isinstance(model, SideInformation):
            model.load(model.side_information(later.attributes, later.train, None))
        if isinstance(model, HistoryBased):
            model.set_history(later.train)
        on_test = self._rank(model, later, num_items, seed, lists=lists)
        chosen_by = {Part.VALIDATION: on_validation[Part.VALIDATION]}
        return Evaluation(on_test.values | chosen_by, on_test.records)

    def _rank(
        self, model: Recommender, data: ClientData, num_items: int, seed: Seed, *, lists: bool
    ) -> Evaluation:
        """Rank both parts by one pass over the catalogue."""
        batches = [
            self._rank_users(data, users, scores, seed, lists=lists)
            for users, scores in score_in_batches(model, data, num_items)
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
        self, data: ClientData, users: slice, scores: Scores, seed: Seed, *, lists: bool
    ) -> tuple[Ranked, Records]:
        """Rank the held-out items of a few users; `scores` loses those that are no candidates."""
        parts = [
            part.slice(users.start, users.stop) for part in (data.train, data.validation, data.test)
        ]
        train, validation, test = parts
        pools = {"": scores}
        if self.num_negatives:
            negatives = draw_negatives(
                data.user_codes[users], parts, scores.shape[1], self.num_negatives, seed
            )
            pools[self._suffix] = np.take_along_axis(scores, negatives, axis=1)
        scores[train.users(), train.item] = -np.inf
        ranks = {}
        for part, held_out in ((Part.VALIDATION, validation), (Part.TEST, test)):
            place = held_out.users(), held_out.item
            held_scores = scores[place]
            scores[place] = -np.inf  # held-out items rank among the others; these remain
            for protocol, others in pools.items():
                ranks[part, protocol] = rank_held_out(held_scores, place[0], others)
        if not lists:
            return ranks, {}
        scores[place] = held_scores  # the test items, which may be recommended
        return ranks, recommend(scores, self.top_k)

    def _values(
        self, part: Part, held_out: Columns, ranks: Ranked, num_candidates: NDArray[np.int64]
    ) -> Values:
        """Metric values per user under both protocols; `num_candidates` is of full ranking."""
        user, values = held_out.users(), Values()
        for protocol in self._protocols:
            rank = ranks[part, protocol]
            if protocol:
                num_candidates = self.num_negatives + np.diff(held_out.offsets)
            ascending = rank[np.lexsort((rank, user))]
            listed = Ranks(ascending, held_out.offsets, num_candidates)
            values |= {metric.name + protocol: metric(listed) for metric in self._parsed()}
        return values

    def _parsed(self) -> list[Metric]:
        return [parse_metric(name) for name in self.metrics]

    @property
    def _suffix(self) -> str:
        return f"_{self.num_negatives}neg"

    @property
    def _protocols(self) -> list[str]:
        """The suffix of each protocol's metrics."""
        return ["", self._suffix] if self.num_negatives else [""]

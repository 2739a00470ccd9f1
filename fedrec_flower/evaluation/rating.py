"""Predicting ratings: RMSE and MAE in raw rating units, predictions clipped to the range."""

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.core.random import Seed
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.evaluation.base import Evaluation, Records, Values, require_at_least, shortened
from fedrec_flower.evaluation.scoring import Scores, concatenate, recommend, score_in_batches
from fedrec_flower.models.base import Recommender

Errors = dict[Part, NDArray[np.float64]]  # of each held-out rating, raw units, signed


@dataclass(frozen=True, slots=True)
class RatingEvaluation:
    """The evaluation group for `task=rating`; defaults live in its yaml.

    Attributes:
        rating_range: injected: lowest and highest rating, raw units; predictions are clipped to it.
        top_k: length of the recommended lists in recommendations.csv.
        every: rounds between evaluations.
        num_clients: clients sampled for each evaluation; None for all.
        select_by: the validation metric that selects the round, "rmse" or "mae".
    """

    rating_range: tuple[float, float] | None
    top_k: int
    every: int
    num_clients: int | None
    select_by: str

    task: ClassVar[str] = "rating"
    higher_is_better: ClassVar[bool] = False
    # Held-out ratings may lie beyond those of training, to which predictions are clipped.
    value_range: ClassVar[tuple[float, float]] = (0.0, inf)
    names: ClassVar[list[str]] = ["rmse", "mae"]

    def __post_init__(self) -> None:
        """Refuse settings that no catalogue could meet."""
        require_at_least(self, top_k=1, every=1)

    def fitted(self, num_items: int, max_seen_items: int) -> tuple["RatingEvaluation", list[str]]:
        """See `Evaluator.fitted`; lists are no longer than the catalogue."""
        del max_seen_items
        top_k, said = shortened(self.top_k, num_items)
        return replace(self, top_k=top_k), said

    def check(self, num_items: int) -> None:
        """Refuse data without ratings, or an unknown metric."""
        del num_items
        if self.rating_range is None:
            raise ConfigError(
                "task=rating needs ratings and these data have none: set task=ranking"
            )
        if self.select_by not in self.names:
            raise ConfigError(
                f"evaluation.select_by={self.select_by} is not computed; choose from {self.names}"
            )

    def most_values(self, held_out: Columns) -> NDArray[np.int64]:
        """One of each held-out rating."""
        return np.diff(held_out.offsets)

    def finish(self, mean: float, standard_error: float, metric: str) -> tuple[float, float]:
        """RMSE is the root of the mean squared error; its standard error by the delta method."""
        if metric != "rmse":
            return mean, standard_error
        root = float(np.sqrt(mean))
        return root, standard_error / (2 * root) if root else 0.0

    def evaluate(
        self,
        model: Recommender,
        data: ClientData,
        num_items: int,
        seed: Seed,
        *,
        lists: bool = True,
    ) -> Evaluation:
        """Predict the held-out ratings of each of the client's users.

        Args:
            model: holds the client's parameters: its users' rows, every item's row.
            data: the client's data.
            num_items: size of the catalogue.
            seed: unused; nothing is drawn.
            lists: whether the records hold the recommended lists.

        Raises:
            TrainingError: if a score is not finite; names the client.
        """
        del seed
        batches = [
            self._predict_users(data, users, scores, lists=lists)
            for users, scores in score_in_batches(model, data, num_items)
        ]
        errors = concatenate([error for error, _ in batches])
        values: dict[Part, Values] = {
            part: {"rmse": error**2, "mae": np.abs(error)} for part, error in errors.items()
        }
        user, on_test = data.test.users(), values[Part.TEST]
        records: Records = {
            "per_user_squared_error": np.bincount(user, on_test["rmse"], data.num_users),
            "per_user_absolute_error": np.bincount(user, on_test["mae"], data.num_users),
            "per_user_num_ratings": np.diff(data.test.offsets),
            **concatenate([recommended for _, recommended in batches]),
        }
        return Evaluation(values, records)

    def _predict_users(
        self, data: ClientData, users: slice, scores: Scores, *, lists: bool
    ) -> tuple[Errors, Records]:
        train, validation, test = (
            part.slice(users.start, users.stop) for part in (data.train, data.validation, data.test)
        )
        held_out = {Part.VALIDATION: validation, Part.TEST: test}
        errors = {part: self._errors(scores, columns) for part, columns in held_out.items()}
        if not lists:
            return errors, {}
        for seen in (train, validation):
            scores[seen.users(), seen.item] = -np.inf
        return errors, recommend(scores, self.top_k)

    def _errors(self, scores: Scores, held_out: Columns) -> NDArray[np.float64]:
        """Signed error of each held-out rating."""
        if held_out.rating is None or self.rating_range is None:
            raise DataError("task=rating needs ratings and these data have none: set task=ranking")
        predicted = np.clip(scores[held_out.users(), held_out.item], *self.rating_range)
        return predicted.astype(np.float64) - held_out.rating

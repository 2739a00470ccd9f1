"""Evaluation of the rating task: RMSE and MAE in raw rating units.

Predictions are clipped to the rating range.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import numpy as np

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.core.random import Seed
from fedrec_flower.core.ranges import PositiveInt, check_fields
from fedrec_flower.core.types import Float64Array, IndexArray
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
from fedrec_flower.evaluation.scoring import (
    concatenate,
    finite_batches,
    recommend,
)

_Errors = dict[Part, Float64Array]
"""Signed error of each held-out rating, raw units, by part."""


@dataclass(frozen=True, slots=True)
class RatingEvaluation:
    """`evaluation=rating`; the defaults are in its yaml.

    Attributes:
        rating_range: lowest and highest training rating, raw units; predictions are clipped to it.
        top_k: length of the recommended lists in recommendations.csv.
        every: rounds between evaluations.
        num_clients: number of clients sampled for each evaluation; None for all.
        select_by: the validation metric that selects the released round, "rmse" or "mae".
    """

    rating_range: tuple[float, float] | None
    top_k: PositiveInt
    every: PositiveInt
    num_clients: int | None
    select_by: str

    task: ClassVar[str] = "rating"
    higher_is_better: ClassVar[bool] = False
    # No upper bound: a held-out rating may be outside the range of the training ratings.
    value_range: ClassVar[tuple[float, float]] = (0.0, inf)
    names: ClassVar[list[str]] = ["rmse", "mae"]

    def __post_init__(self) -> None:
        """Check the settings."""
        check_fields("evaluation", self)

    def fitted(
        self,
        num_items: int,
        max_seen_items: int,  # noqa: ARG002
    ) -> tuple["RatingEvaluation", list[str]]:
        """Limit recommended lists to the size of the catalogue."""
        top_k, sentences = limit_list_length(self.top_k, num_items)
        return replace(self, top_k=top_k), sentences

    def check(self, num_items: int) -> None:  # noqa: ARG002
        """Check that the data have ratings and the selecting metric exists."""
        if self.rating_range is None:
            raise ConfigError(
                "task=rating needs ratings and these data have none: set task=ranking"
            )
        if self.select_by not in self.names:
            raise ConfigError(
                f"evaluation.select_by={self.select_by} is not computed; choose from {self.names}"
            )

    def max_values(self, held_out: Columns) -> IndexArray:
        """Return the number of held-out ratings of each user, int64 (num_users,)."""
        return np.diff(held_out.offsets)

    def finish(self, mean: float, standard_error: float, metric: str) -> tuple[float, float]:
        """Take the root for RMSE; its standard error follows from the delta method."""
        if metric != "rmse":
            return mean, standard_error
        root = float(np.sqrt(mean))
        return root, standard_error / (2 * root) if root else 0.0

    def evaluate(
        self,
        scorer: Scorer,
        data: UserBatch,
        num_items: int,
        seed: Seed,  # noqa: ARG002
        *,
        lists: bool = True,
    ) -> Evaluation:
        """Predict the held-out ratings of each user.

        Args:
            scorer: scores the users.
            data: the users.
            num_items: size of the catalogue.
            seed: not used.
            lists: whether the records include recommended lists.

        Raises:
            TrainingError: if a score is not finite; names the client.
        """
        batches = [
            self._predict_users(data, users, scores, lists=lists)
            for users, scores in finite_batches(scorer, data, num_items)
        ]
        errors = concatenate([error for error, _ in batches])
        values: dict[Part, Values] = {
            part: {"rmse": error**2, "mae": np.abs(error)} for part, error in errors.items()
        }
        user = data.test.users()
        on_test = values[Part.TEST]
        records: Records = {
            "per_user_squared_error": np.bincount(user, on_test["rmse"], data.num_users),
            "per_user_absolute_error": np.bincount(user, on_test["mae"], data.num_users),
            "per_user_num_ratings": np.diff(data.test.offsets),
            **concatenate([recommended for _, recommended in batches]),
        }
        return Evaluation(values, records)

    def _predict_users(
        self, data: UserBatch, users: slice, scores: Scores, *, lists: bool
    ) -> tuple[_Errors, Records]:
        train, validation, test = (
            part.slice(users.start, users.stop) for part in (data.train, data.validation, data.test)
        )
        held_out = {Part.VALIDATION: validation, Part.TEST: test}
        errors = {part: self._errors(scores, columns) for part, columns in held_out.items()}
        if not lists:
            return errors, {}
        return errors, recommend(scores, (train, validation), self.top_k)

    def _errors(self, scores: Scores, held_out: Columns) -> Float64Array:
        """Return the signed error of each held-out rating, float64 (n,)."""
        if held_out.rating is None or self.rating_range is None:
            raise DataError("task=rating needs ratings and these data have none: set task=ranking")
        predicted = np.clip(scores[held_out.users(), held_out.item], *self.rating_range)
        return predicted.astype(np.float64) - held_out.rating

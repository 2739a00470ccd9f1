"""The interface of evaluators, and the result of an evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from fedrec_flower.core.random import Seed
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Columns
from fedrec_flower.data.user_batch import UserBatch

Scores = Float32Array
"""Shape (num_users, num_items)."""
Values = dict[str, Float64Array]
"""Metric -> one value per user or held-out interaction."""
Records = dict[str, NDArray[Any]]
"""Column -> one row per user or test interaction."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of the evaluation of users.

    Attributes:
        values: values to average, per part (validation, test) and metric; NaN is ignored.
        records: columns of the per-user tables; they stay on the node. Columns named
            `per_user_*` have a row per user, `per_test_*` a row per test interaction.
    """

    values: dict[Part, Values]
    records: Records


class Scorer(Protocol):
    """Scores every item for users whose parameters it has."""

    def batches(self, data: UserBatch, num_items: int) -> Iterator[tuple[slice, Scores]]:
        """Score users, a few at a time.

        Args:
            data: the users. Histories and attributes are read from it, so that one scorer can
                score the same users with other histories.
            num_items: size of the catalogue.

        Yields:
            The users [start, stop) of the batch, in order, and their scores; not to be changed.
        """
        ...


class Evaluator(Protocol):
    """Evaluates scores of users on their held-out items."""

    @property
    def task(self) -> str:
        """The evaluated task: "ranking" or "rating"."""
        ...

    @property
    def every(self) -> int:
        """Rounds between evaluations."""
        ...

    @property
    def num_clients(self) -> int | None:
        """Number of clients sampled for each evaluation; None for all."""
        ...

    @property
    def select_by(self) -> str:
        """The validation metric that selects the released round."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of the selecting metric is better."""
        ...

    @property
    def names(self) -> list[str]:
        """Names of the metrics that are computed for each part."""
        ...

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest value of all metrics; infinity for no bound."""
        ...

    def max_values(self, held_out: Columns) -> IndexArray:
        """Return the largest number of values that a metric has per user, int64 (num_users,)."""
        ...

    def fitted(self, num_items: int, max_seen_items: int) -> tuple["Evaluator", list[str]]:
        """Remove the settings that the data cannot support.

        Args:
            num_items: size of the catalogue.
            max_seen_items: number of interactions of the most active user, over all parts.

        Returns:
            An evaluator for these data, and one sentence per changed setting.
        """
        ...

    def check(self, num_items: int) -> None:
        """Check the settings against the catalogue.

        Raises:
            ConfigError: names the setting.
        """
        ...

    def evaluate(
        self,
        scorer: Scorer,
        data: UserBatch,
        num_items: int,
        seed: Seed,
        *,
        lists: bool = True,
    ) -> Evaluation:
        """Evaluate the held-out interactions of users.

        Args:
            scorer: scores the users.
            data: the users.
            num_items: size of the catalogue.
            seed: seed of random draws.
            lists: whether the records include recommended lists, which cost more passes.
        """
        ...

    def finish(self, mean: float, standard_error: float, metric: str) -> tuple[float, float]:
        """Turn the mean of values and its standard error into the metric and its standard error."""
        ...


def limit_list_length(top_k: int, num_items: int) -> tuple[int, list[str]]:
    """Return the length of recommended lists in a catalogue, and a sentence if it is reduced."""
    if top_k <= num_items:
        return top_k, []
    return num_items, [
        f"recommended lists hold the {num_items} items of the catalogue, not {top_k}"
    ]

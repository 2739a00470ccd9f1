"""The interface of evaluators, and the result of an evaluation."""

from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from fedrec_flower.core.random import Seed
from fedrec_flower.core.types import Float64Array, IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.models.base import Recommender

Values = dict[str, Float64Array]
"""Metric -> one value per user or held-out interaction."""
Records = dict[str, NDArray[Any]]
"""Column -> one row per user or test interaction."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Result of the evaluation of one client.

    Attributes:
        values: values to average, per part (validation, test) and metric; NaN is ignored.
        records: columns of the per-user tables; they stay on the node. Columns named
            `per_user_*` have a row per user, `per_test_*` a row per test interaction.
    """

    values: dict[Part, Values]
    records: Records


class Evaluator(Protocol):
    """Evaluates the parameters that are loaded in a model on a client's held-out items."""

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
        model: Recommender,
        data: ClientData,
        num_items: int,
        seed: Seed,
        *,
        lists: bool = True,
    ) -> Evaluation:
        """Evaluate one client's held-out interactions.

        Args:
            model: a model with the client's parameters loaded.
            data: the client's data.
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

"""What an evaluation gives, whatever the task."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import Seed
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.models.base import Recommender

Values = dict[str, NDArray[np.float64]]  # metric -> one value per user or held-out interaction
Records = dict[str, NDArray[Any]]  # column -> one row per user or per test interaction


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One client, evaluated.

    Attributes:
        values: per part (validation, test) and metric, values to be averaged; NaN counts not.
        records: what per-user tables are made of; stays on the node. Columns named
            `per_user_*` have a row per user, `per_test_*` one per test interaction.
    """

    values: dict[Part, Values]
    records: Records


class Evaluator(Protocol):
    """Scores a client's held-out items with the parameters loaded in a model."""

    @property
    def task(self) -> str:
        """The task it measures: "ranking" or "rating"."""
        ...

    @property
    def every(self) -> int:
        """Rounds between evaluations."""
        ...

    @property
    def num_clients(self) -> int | None:
        """Clients sampled for each evaluation; None for all."""
        ...

    @property
    def select_by(self) -> str:
        """The validation metric that selects the round."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of the selecting metric is the better one."""
        ...

    @property
    def names(self) -> list[str]:
        """Names of the metrics that it measures of each part."""
        ...

    @property
    def value_range(self) -> tuple[float, float]:
        """The lowest and the highest value of any metric; infinity where there is no bound."""
        ...

    def most_values(self, held_out: Columns) -> NDArray[np.int64]:
        """The most values that a metric has of each user, int64 (num_users,)."""
        ...

    def fitted(self, num_items: int, max_seen_items: int) -> tuple["Evaluator", list[str]]:
        """Leave out what the data cannot support.

        Args:
            num_items: size of the catalogue.
            max_seen_items: interactions of the most active user, all parts together.

        Returns:
            An evaluator for these data, and one sentence on each setting that changed.
        """
        ...

    def check(self, num_items: int) -> None:
        """Refuse settings that the catalogue cannot meet."""
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
        """Score one client's held-out interactions; make recommended lists only if asked to."""
        ...

    def finish(self, mean: float, standard_error: float, metric: str) -> tuple[float, float]:
        """Turn a mean of values and its standard error into the metric and its own."""
        ...


def require_at_least(evaluator: object, **least: int) -> None:
    """Refuse settings below what makes sense.

    Raises:
        ConfigError: names the setting, its value and the least there may be.
    """
    for name, bound in least.items():
        value = getattr(evaluator, name)
        if value < bound:
            raise ConfigError(f"evaluation.{name}={value} is impossible: give {bound} or more")


def shortened(top_k: int, num_items: int) -> tuple[int, list[str]]:
    """The length of recommended lists in a catalogue, and a sentence if it is not as asked."""
    if top_k <= num_items:
        return top_k, []
    return num_items, [
        f"recommended lists hold the {num_items} items of the catalogue, not {top_k}"
    ]

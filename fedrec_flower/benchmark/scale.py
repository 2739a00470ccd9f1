"""The scale table: what preparing, rounds and evaluation cost at the shapes of real datasets.

The data are synthetic (`conf/dataset/synthetic.yaml`), the model MF with the training of
`measuring.WORK`: embedding_dim 16, batches of 128, one epoch, four negatives per interaction.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedrec_flower.benchmark.costs import Cost, evaluation, opening, training
from fedrec_flower.benchmark.measuring import in_new_process

_COHORTS = (1_000, 10_000, 100_000)  # and 1 % of the clients, and all of them
_EVALUATED = 10_000  # clients at most
_EVALUATIONS = {"full ranking": 0, "full ranking and 99 negatives": 99}
_TRAINED = 100_000  # clients to be measured, over several rounds if cohorts are smaller
_MOST_ROUNDS = 5

Measure = Callable[..., Any]  # calls its first argument with the others, here or elsewhere


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a dataset.

    Attributes:
        name: the dataset that has it.
        num_users: number of users, each of whom is a client.
        num_items: size of the catalogue.
        num_interactions: number of interactions.
    """

    name: str
    num_users: int
    num_items: int
    num_interactions: int

    @property
    def overrides(self) -> str:
        """Synthetic data of this size, as on the command line."""
        sizes = ("num_users", "num_items", "num_interactions")
        chosen = [f"dataset.{size}={getattr(self, size)}" for size in sizes]
        return " ".join(["dataset=synthetic", *chosen])

    @property
    def cohorts(self) -> list[int]:
        """Cohorts worth measuring, ascending: 1 % of the clients, powers of ten, all."""
        sizes = {max(self.num_users // 100, 1), *_COHORTS, self.num_users}
        return sorted(size for size in sizes if size <= self.num_users)


SHAPES = (
    Shape("ML-1M", 6_040, 3_706, 1_000_000),
    Shape("ML-25M", 162_541, 59_047, 25_000_000),
)


def scale_table(shapes: Sequence[Shape], measure: Measure = in_new_process) -> pd.DataFrame:
    """Prepare, open, train and evaluate at each shape, each in a process of its own.

    Args:
        shapes: sizes of datasets.
        measure: calls its first argument, a function of `costs`, with the others.

    Returns:
        One row per measurement: shape, measured ("preparation", "opening again", "round", "full
        ranking", "full ranking and 99 negatives"), clients, first_seconds (wall; rounds only),
        seconds (median wall), cpu_milliseconds_per_client and clients_per_cpu_second (medians; CPU
        of all threads, which other programs on the machine do not stretch as they do wall time),
        peak_memory_mb (of the process).
    """
    rows = [row for shape in shapes for row in _measured(shape, measure)]
    return pd.DataFrame(rows)


def _measured(shape: Shape, measure: Measure) -> list[dict[str, Any]]:
    everyone = shape.num_users
    with tempfile.TemporaryDirectory() as cache:
        dataset = f"{shape.overrides} dataset.cache_dir={cache}"
        rows = [
            _row(shape, "preparation", everyone, measure(opening, dataset)),
            _row(shape, "opening again", everyone, measure(opening, dataset)),
        ]
        for cohort in shape.cohorts:
            rounds = min(max(_TRAINED // cohort, 1), _MOST_ROUNDS)
            rows.append(_row(shape, "round", cohort, measure(training, dataset, cohort, rounds)))
        scored = min(_EVALUATED, everyone)
        for name, negatives in _EVALUATIONS.items():
            rows.append(_row(shape, name, scored, measure(evaluation, dataset, negatives, scored)))
    return rows


def _row(shape: Shape, measured: str, clients: int, cost: Cost) -> dict[str, Any]:
    return {
        "shape": shape.name,
        "measured": measured,
        "clients": clients,
        "first_seconds": cost.get("first_seconds"),
        "seconds": cost["seconds"],
        "cpu_milliseconds_per_client": 1e3 * cost["cpu_seconds"] / clients,
        "clients_per_cpu_second": clients / cost["cpu_seconds"],
        "peak_memory_mb": cost["peak_memory_mb"],
    }

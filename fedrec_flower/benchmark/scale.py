"""Scale table: cost of preparation, rounds and evaluation at the size of real datasets.

The data are synthetic (`conf/dataset/synthetic.yaml`), the model MF with the training of
`measuring.WORK`: embedding_dim 16, batches of 128, one epoch, four negatives per interaction.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from fedrec_flower.benchmark.costs import Cost, evaluation, opening, training
from fedrec_flower.benchmark.measuring import WORK, in_new_process

_COHORTS = (1_000, 10_000, 100_000)  # plus 1 % of the clients, and all of them
_MAX_EVALUATED = 10_000  # clients
_EVALUATIONS = {"full ranking": 0, "full ranking and 99 negatives": 99}
_NUM_TRAINED = 100_000  # clients to measure, over several rounds if cohorts are smaller
_MAX_ROUNDS = 5

Measure = Callable[..., Any]  # calls its first argument with the other arguments


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a dataset.

    Attributes:
        name: the dataset of this size.
        num_users: number of users; each user is a client.
        num_items: size of the catalogue.
        num_interactions: number of interactions.
    """

    name: str
    num_users: int
    num_items: int
    num_interactions: int

    @property
    def overrides(self) -> str:
        """Overrides for MF on synthetic data of this size, as on the command line."""
        sizes = ("num_users", "num_items", "num_interactions")
        chosen = [f"dataset.{size}={getattr(self, size)}" for size in sizes]
        return " ".join(["dataset=synthetic", *chosen, "model=mf", *WORK])

    @property
    def cohorts(self) -> list[int]:
        """Measured cohort sizes, ascending: 1 % of the clients, powers of ten, all clients."""
        sizes = {max(self.num_users // 100, 1), *_COHORTS, self.num_users}
        return sorted(size for size in sizes if size <= self.num_users)


SHAPES = (
    Shape("ML-1M", 6_040, 3_706, 1_000_000),
    Shape("ML-25M", 162_541, 59_047, 25_000_000),
)


def scale_table(shapes: Sequence[Shape], measure: Measure = in_new_process) -> pd.DataFrame:
    """Prepare, open, train and evaluate at each shape, each in a separate process.

    Args:
        shapes: sizes of datasets.
        measure: calls its first argument, a function of `costs`, with the other arguments.

    Returns:
        One row per measurement: shape, measured ("preparation", "opening again", "round", "full
        ranking", "full ranking and 99 negatives"), clients, first_seconds (wall; rounds only),
        seconds (median wall), cpu_milliseconds_per_client and clients_per_cpu_second (medians; CPU
        of all threads, less sensitive to other programs than wall time), peak_memory_mb (of the
        process).
    """
    rows = [row for shape in shapes for row in _measured(shape, measure)]
    return pd.DataFrame(rows)


def _measured(shape: Shape, measure: Measure) -> list[dict[str, Any]]:
    num_clients = shape.num_users
    with tempfile.TemporaryDirectory() as cache:
        dataset = f"{shape.overrides} dataset.cache_dir={cache}"
        rows = [
            _row(shape, "preparation", num_clients, measure(opening, dataset)),
            _row(shape, "opening again", num_clients, measure(opening, dataset)),
        ]
        for cohort in shape.cohorts:
            rounds = min(max(_NUM_TRAINED // cohort, 1), _MAX_ROUNDS)
            rows.append(_row(shape, "round", cohort, measure(training, dataset, cohort, rounds)))
        scored = min(_MAX_EVALUATED, num_clients)
        for name, negatives in _EVALUATIONS.items():
            protocol = f"{dataset} evaluation.num_negatives={negatives}"
            rows.append(_row(shape, name, scored, measure(evaluation, protocol, 1, scored, 1)))
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

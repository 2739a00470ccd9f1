"""What a run asks of its strategy, what it hears on the way, and what it gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.evaluation import Evaluator, MetricSums
from fedrec_flower.interactions import Part
from fedrec_flower.models.base import Recommender, Tensors

Metrics = dict[Part, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The run, as the server sees it.

    Attributes:
        job: what every node must know, JSON-able; see `client.node.open_node`.
        seed: the experiment's seed.
        num_clients: clients of the federation.
        clients_per_round: size of a cohort.
        num_rounds: rounds of training.
        evaluator: when to evaluate, on how many clients, and which metric selects the round.
        item_tables: names of the parameters with a row per item.
        model: the recommender, without users.
    """

    job: Mapping[str, Any]
    seed: int
    num_clients: int
    clients_per_round: int
    num_rounds: int
    evaluator: Evaluator
    item_tables: frozenset[str]
    model: Recommender


class Observer(Protocol):
    """Hears what happens, as it happens; may raise to end the run."""

    def trained(self, round_: int, loss: float, num_clients: int) -> None:
        """A round of training is aggregated; `loss` is the mean over its interactions."""
        ...

    def evaluated(self, round_: int, metrics: Metrics, num_clients: int) -> None:
        """A round is evaluated: means by part and metric."""
        ...


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluated round.

    Attributes:
        round: the round.
        slot: where the nodes keep their personal parameters of this round.
        parameters: shared parameters of this round.
        metrics: means by part and metric.
        standard_errors: their standard errors over users (over ratings for rating metrics).
        num_clients: clients evaluated.
        num_users: users evaluated.
    """

    round: int
    slot: str
    parameters: Tensors
    metrics: Metrics
    standard_errors: Metrics
    num_clients: int
    num_users: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run leaves behind on the server.

    Attributes:
        selected: the round that validation chose, evaluated again on every client.
        best_test: round and test metrics of the best test round: stored, never headlined.
        rounds_participated: int64 (num_clients,), how often each client was in a cohort.
        seconds: wall time spent in `train` and in `evaluate`.
        bytes_down: bytes of the shared parameters that one client receives a round.
        bytes_up: bytes of the update that one client would send a round if it were alone on its
            node, on average.
    """

    selected: Evaluated
    best_test: Evaluated
    rounds_participated: NDArray[np.int64]
    seconds: Mapping[str, float]
    bytes_down: int
    bytes_up: int


def finish(evaluator: Evaluator, sums: Mapping[Part, MetricSums]) -> tuple[Metrics, Metrics]:
    """Turn sums over all nodes into metrics and their standard errors."""
    metrics: Metrics = {}
    errors: Metrics = {}
    for part, total in sums.items():
        pairs = {
            metric: evaluator.finish(total.mean(metric), total.standard_error(metric), metric)
            for metric in total.total
        }
        metrics[part] = {metric: value for metric, (value, _) in pairs.items()}
        errors[part] = {metric: error for metric, (_, error) in pairs.items()}
    return metrics, errors

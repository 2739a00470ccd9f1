"""Results of a run on the server: evaluated rounds and the outcome."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.evaluation.metric_sums import MetricSums

Metrics = dict[Part, dict[str, float]]
"""Part of the data -> metric -> mean over users (over ratings for rating metrics)."""


@dataclass(frozen=True, slots=True)
class TrainedRound:
    """One trained round.

    Attributes:
        round: the round.
        loss: the mean training loss over the interactions of its clients.
        num_clients: number of clients with valid replies; under central noise, the expected number
            of clients in a cohort.
        failures: number of missing or rejected replies, by kind, in all attempts at the round.
        metrics: further metrics of the strategy and of privacy; and the number of `attempts` where
            it exceeds 1.
    """

    round: int
    loss: float
    num_clients: int
    failures: Mapping[str, int]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluated round.

    Attributes:
        round: the round.
        slot: name of the snapshot of the nodes' personal parameters of this round.
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

    def facts(self) -> dict[str, Any]:
        """Return every attribute but the parameters, JSON-able."""
        return {
            "round": self.round,
            "slot": self.slot,
            "metrics": _by_name(self.metrics),
            "standard_errors": _by_name(self.standard_errors),
            "num_clients": self.num_clients,
            "num_users": self.num_users,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any], parameters: Tensors) -> Self:
        """Restore an evaluated round from its `facts` and its parameters."""
        means = {name: _by_part(facts[name]) for name in ("metrics", "standard_errors")}
        return cls(parameters=parameters, **{**facts, **means})


def _by_name(metrics: Metrics) -> dict[str, dict[str, float]]:
    return {part.name: values for part, values in metrics.items()}


def _by_part(metrics: Mapping[str, dict[str, float]]) -> Metrics:
    return {Part[name]: values for name, values in metrics.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run on the server.

    Attributes:
        selected: the released round, evaluated again on every client; without metrics where clients
            are not evaluated.
        best_test: metrics of the round with the best test metric; stored, never the headline.
        rounds_participated: int64 (num_clients,), number of cohorts that contained each client.
        seconds: wall time spent in "train" and in "evaluate".
        bytes_down: bytes of the shared parameters that one client receives in a round.
        bytes_up: mean bytes of the update that one client would send in a round if its node hosted
            no other client.
        failures: number of missing or rejected replies, by kind; the sum over all rounds.
        stopped_at: the last round if the run ended before `num_rounds`; None otherwise.
        privacy: entries of the summary about privacy.
    """

    selected: Evaluated
    best_test: Evaluated
    rounds_participated: NDArray[np.int64]
    seconds: Mapping[str, float]
    bytes_down: int
    bytes_up: int
    failures: Mapping[str, int]
    stopped_at: int | None
    privacy: Mapping[str, Any]


def finish(evaluator: Evaluator, sums: Mapping[Part, MetricSums]) -> tuple[Metrics, Metrics]:
    """Turn sums over all nodes into metrics and their standard errors."""
    metrics: Metrics = {}
    errors: Metrics = {}
    for part, total in sums.items():
        pairs = {
            metric: evaluator.finish(total.mean(metric), total.standard_error(metric), metric)
            for metric, count in total.count.items()
            if count  # a metric without samples has no value
        }
        metrics[part] = {metric: value for metric, (value, _) in pairs.items()}
        errors[part] = {metric: error for metric, (_, error) in pairs.items()}
    return metrics, errors

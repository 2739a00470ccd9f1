"""What a run asks of its strategy, what it hears on the way, and what it gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.secure_aggregation.secagg import SecureAggregation
from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.evaluation.metric_sums import Bounds, MetricSums
from fedrec_flower.federation.job import NodeJob, NodePlace
from fedrec_flower.models.base import Recommender
from fedrec_flower.privacy.mechanism import ServerMechanism

Release = Literal["validation", "last"]
Metrics = dict[Part, dict[str, float]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The run, as the server sees it.

    Attributes:
        job: the job that every node receives, without the strategy's part.
        place: paths of simulated nodes; None in a deployment.
        seed: the experiment's seed.
        num_clients: clients of the federation.
        num_items: size of the catalogue.
        num_examples: int64 (num_clients,), training interactions of each client; only simulated
            clocks may look.
        clients_per_round: size of a cohort.
        num_rounds: rounds of training.
        evaluator: when to evaluate, on how many clients, and which metric selects the round.
        release: which evaluated round is released: the best by validation, or the last.
        measures: whether clients are scored. If not, nodes keep snapshots and send no metric.
        bounds: what no honest evaluation exceeds.
        item_tables: names of the parameters with a row per item.
        model: the recommender, without users.
        limits: what no honest update exceeds.
        min_completion: share of a cohort that must reply soundly for a round to count.
        max_retries: how often a round is tried again, each time with a fresh cohort.
        reply_timeout: seconds after which a node that has not replied is taken for silent.
        node_patience: seconds to wait for nodes before the first round.
        checkpoint_every: rounds between checkpoints; None for none.
        patience: evaluations without a better one after which the run ends; None for no end.
        curator: says whom to ask, and what may be used of their sum.
        secure: whether the server may see the sum of each node, or that of all alone.
    """

    job: NodeJob
    place: NodePlace | None
    seed: int
    num_clients: int
    num_items: int
    num_examples: NDArray[np.int64]
    clients_per_round: int
    num_rounds: int
    evaluator: Evaluator
    release: Release
    measures: bool
    bounds: Bounds
    item_tables: frozenset[str]
    model: Recommender
    limits: Limits
    min_completion: float
    max_retries: int
    reply_timeout: float
    node_patience: float
    checkpoint_every: int | None
    patience: int | None
    curator: ServerMechanism
    secure: SecureAggregation


class Observer(Protocol):
    """Hears what happens, as it happens; may raise to end the run."""

    def began(self, round_: int) -> None:
        """Training goes on after this round: 0, or that of the checkpoint taken up."""
        ...

    def trained(
        self,
        round_: int,
        loss: float,
        num_clients: int,
        lost: Mapping[str, int],
        more: Mapping[str, float],
    ) -> None:
        """A round of training is aggregated.

        Args:
            round_: the round.
            loss: the mean over its interactions.
            num_clients: how many clients replied soundly; under central noise, how many are
                expected in a cohort.
            lost: how many replies are missing or were left out, by kind, in all attempts at it.
            more: what else the strategy has measured, by metric; and how many `attempts` it took,
                where that was more than one.
        """
        ...

    def evaluated(self, round_: int, metrics: Metrics, num_clients: int) -> None:
        """A round is evaluated: means by part and metric."""
        ...

    def reached(self, checkpoint: Checkpoint) -> None:
        """The run can go on from here, if this is kept."""
        ...


class Unobserved:
    """An `Observer` that ignores every event."""

    def began(self, round_: int) -> None:
        """See `Observer.began`."""

    def trained(
        self,
        round_: int,
        loss: float,
        num_clients: int,
        lost: Mapping[str, int],
        more: Mapping[str, float],
    ) -> None:
        """See `Observer.trained`."""

    def evaluated(self, round_: int, metrics: Metrics, num_clients: int) -> None:
        """See `Observer.evaluated`."""

    def reached(self, checkpoint: Checkpoint) -> None:
        """See `Observer.reached`."""


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

    def facts(self) -> dict[str, Any]:
        """Everything but the parameters, JSON-able."""
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
        """What `facts` told of, with the parameters it left out."""
        means = {name: _by_part(facts[name]) for name in ("metrics", "standard_errors")}
        return cls(parameters=parameters, **{**facts, **means})


def _by_name(metrics: Metrics) -> dict[str, dict[str, float]]:
    return {part.name: values for part, values in metrics.items()}


def _by_part(metrics: Mapping[str, dict[str, float]]) -> Metrics:
    return {Part[name]: values for name, values in metrics.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run leaves behind on the server.

    Attributes:
        selected: the round that is released, evaluated again on every client; without metrics
            where clients are not scored.
        best_test: metrics of the best test round: stored, never headlined.
        rounds_participated: int64 (num_clients,), how often each client was in a cohort.
        seconds: wall time spent in `train` and in `evaluate`.
        bytes_down: bytes of the shared parameters that one client receives a round.
        bytes_up: bytes of the update that one client would send a round if it were alone on its
            node, on average.
        lost: how many replies were missing or left out, by kind; the sum over all rounds.
        stopped_at: the last round, if there were to be more; None otherwise.
        privacy: what the summary says of it.
    """

    selected: Evaluated
    best_test: Evaluated
    rounds_participated: NDArray[np.int64]
    seconds: Mapping[str, float]
    bytes_down: int
    bytes_up: int
    lost: Mapping[str, int]
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
            if count  # of what nobody has, there is nothing to tell
        }
        metrics[part] = {metric: value for metric, (value, _) in pairs.items()}
        errors[part] = {metric: error for metric, (_, error) in pairs.items()}
    return metrics, errors

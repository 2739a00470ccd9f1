"""The facts of a run that the server needs."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.limits import Limits
from fedrec_flower.evaluation.metric_sums import Bounds
from fedrec_flower.federation.job import NodeJob, NodePlace

Release = Literal["validation", "last"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The facts of a run: sizes, schedules and limits. It holds no mechanism and no model.

    Attributes:
        job: the job that every node receives, without the strategy's part.
        place: paths of simulated nodes; None in a deployment.
        seed: the experiment's seed.
        num_clients: clients of the federation.
        num_items: size of the catalogue.
        num_examples: int64 (num_clients,), training interactions of each client; only for
            simulated clocks.
        clients_per_round: size of a cohort.
        num_rounds: rounds of training.
        release: which evaluated round is released: the best by validation, or the last.
        measures: whether clients are evaluated. If not, nodes keep snapshots and send no metric.
        bounds: limits of an honest evaluation reply.
        item_tables: names of the parameters with a row per item.
        limits: limits of an honest update.
        min_completion: share of a cohort that must send valid replies for a round to count.
        max_retries: how often a round is tried again, each time with a fresh cohort.
        reply_timeout: seconds after which a node without a reply counts as silent.
        node_patience: seconds to wait for nodes before the first round.
        checkpoint_every: rounds between checkpoints; None for no checkpoints.
        patience: evaluations without a better one after which the run ends; None for no early end.
    """

    job: NodeJob
    place: NodePlace | None
    seed: int
    num_clients: int
    num_items: int
    num_examples: NDArray[np.int64]
    clients_per_round: int
    num_rounds: int
    release: Release
    measures: bool
    bounds: Bounds
    item_tables: frozenset[str]
    limits: Limits
    min_completion: float
    max_retries: int
    reply_timeout: float
    node_patience: float
    checkpoint_every: int | None
    patience: int | None

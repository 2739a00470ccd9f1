"""What nodes say of a round that they evaluated, believed if an honest node could say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Message, RecordDict

from fedrec_flower.communication.train_reply import UnsoundError, opened
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.metric_sums import Bounds, MetricSums


@dataclass(frozen=True, slots=True)
class Scored:
    """What a node says of the evaluation of its clients.

    Attributes:
        sums: by part.
        num_clients: clients evaluated.
        num_users: users evaluated.
    """

    sums: Mapping[Part, MetricSums]
    num_clients: int
    num_users: int

    @property
    def lost(self) -> Mapping[int, str]:
        """Nobody: a node speaks for all the clients that it was asked about, or is not heard."""
        return {}


@dataclass(frozen=True, slots=True)
class ExpectedScores:
    """What an evaluation reply looks like.

    Attributes:
        bounds: what no honest evaluation exceeds.
    """

    bounds: Bounds

    def heard(self, message: Message, clients: Sequence[int]) -> Scored:
        """Take a reply apart, and refuse one that no honest node would send.

        Args:
            message: the reply.
            clients: the clients that its node was asked about.

        Raises:
            UnsoundError: if the node failed, or says what cannot be.
        """
        scored = opened(message, _taken_apart)
        counts = len(clients), int(self.bounds.num_users[clients].sum())
        if (scored.num_clients, scored.num_users) != counts:
            raise UnsoundError(
                f"malformed: it speaks for {scored.num_clients} clients with {scored.num_users} "
                "users, not for those that were asked"
            )
        if wrong := self.bounds.fault(scored.sums, clients):
            raise UnsoundError(wrong)
        return scored


def _taken_apart(content: RecordDict) -> Scored:
    metrics: Any = content.metric_records["metrics"]
    sums = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
    for key, value in metrics.items():
        part, _, metric = key.partition("/")
        if metric:
            sums[Part[part.upper()]].put(metric, *map(float, value))
    return Scored(sums, int(metrics["num_clients"]), int(metrics["num_users"]))

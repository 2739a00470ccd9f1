"""Reasons why a client's reply is missing or rejected."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Self


class FailureKind(StrEnum):
    """Kind of a failure; the value is its name in messages, logs and result files."""

    SILENT = "silent"
    """The node did not reply in time."""
    NODE_FAILED = "a_node_failed"
    """The node replied with an error."""
    MALFORMED = "malformed"
    """The reply does not have the fields or types of its message schema."""
    REPEATED = "repeated"
    """The reply arrived more than once."""
    WRONG_NAMES = "wrong_names"
    WRONG_SHAPE = "wrong_shape"
    WRONG_ROWS = "wrong_rows"
    """The item codes of a table's rows are invalid."""
    WRONG_WEIGHT = "wrong_weight"
    WRONG_LOSS = "wrong_loss"
    WRONG_COUNT = "wrong_count"
    """The number of evaluated values is impossible."""
    OUT_OF_RANGE = "out_of_range"
    """A metric is outside its range."""
    NOT_FINITE = "not_finite"
    HUGE = "huge"
    DROPPED_OUT = "dropped_out"
    """Simulated fault: the client did not take part in the round."""
    CRASHED = "crashed"
    """Simulated fault: the client failed during training."""
    LATE = "late"
    """Simulated fault: the client replied after the deadline."""
    ANSWERED = "answered"
    """The client is in a masked sum of this round that was already released."""
    TOO_FEW_NODES = "too_few_nodes"
    """Too few nodes remained to unmask the sum."""
    TOO_FEW_CLIENTS = "too_few_clients"
    """The masked sum would hold too few clients."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One reason why a reply is missing or rejected.

    Attributes:
        kind: kind of the failure.
        detail: explanation for the log; may be empty.
    """

    kind: FailureKind
    detail: str = ""

    def __str__(self) -> str:
        """Return the form used in messages and logs: "kind: detail", or "kind" without detail."""
        if not self.detail:
            return self.kind.value
        return f"{self.kind.value}: {self.detail}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the form that `str` returns.

        Raises:
            ValueError: if the kind is unknown.
        """
        kind, _, detail = text.partition(": ")
        return cls(FailureKind(kind), detail)

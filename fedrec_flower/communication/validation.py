"""Validates node replies against the expected names, shapes and limits, and collects valid ones."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from flwr.app import Message, RecordDict

from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.packing import ROWS, add_packed
from fedrec_flower.communication.schema import EvaluateReply, TrainReply
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.types import Arrays, Float32Array, Float64Array, IndexArray, Shapes, Sums
from fedrec_flower.core.updates import LAYOUT, ROW_WEIGHT, Updates, UpdateSum
from fedrec_flower.evaluation.metric_sums import Bounds

_LOG = logging.getLogger(__name__)

_RELATIVE_TOLERANCE = 1 + 1e-5  # sums are sent as float32
_LOSS_TOLERANCE = 1e-6  # a loss of zero may be computed as slightly negative

ContentT = TypeVar("ContentT")


class InvalidReplyError(Exception):
    """A reply that cannot be used.

    Attributes:
        failure: the reason.
    """

    def __init__(self, kind: FailureKind, detail: str) -> None:
        self.failure = Failure(kind, detail)
        super().__init__(str(self.failure))


def read_reply(message: Message, parse: Callable[[RecordDict], ContentT]) -> ContentT:
    """Read a reply from an untrusted node.

    Args:
        message: the reply.
        parse: reads the content, usually a `from_record`; may raise any exception.

    Raises:
        InvalidReplyError: if the node replied with an error, or `parse` failed.
    """
    if message.has_error():
        raise InvalidReplyError(FailureKind.NODE_FAILED, _error_text(message))
    try:
        return parse(message.content)
    except KeyError as error:
        raise InvalidReplyError(FailureKind.MALFORMED, f"it lacks {error}") from error
    except Exception as error:  # untrusted bytes may cause any exception in a parser
        raise InvalidReplyError(FailureKind.MALFORMED, str(error)) from error


def require_all_replies(replies: Iterable[Message], expected: int) -> list[Message]:
    """Return the replies if every node replied without an error.

    Args:
        replies: the received replies.
        expected: number of nodes that were asked.

    Raises:
        TrainingError: with a node's error text, or with the number of missing replies.
    """
    received = list(replies)
    for reply in received:
        if reply.has_error():
            raise TrainingError(f"a node failed: {_error_text(reply)}")
    if len(received) < expected:
        raise TrainingError(f"only {len(received)} of {expected} nodes answered in time")
    return received


def _error_text(message: Message) -> str:
    """Return a node's error text without the text that Flower adds around it."""
    text = message.error.reason or "it gave no reason"
    return text.rpartition("Message: ")[2].removesuffix("'>").strip()


class Reply(Protocol):
    """A reply of any type."""

    @property
    def failures(self) -> Mapping[int, Failure]:
        """Why some of the node's clients did not reply, by client code."""
        ...


ReplyT = TypeVar("ReplyT", bound=Reply)
ReplyT_co = TypeVar("ReplyT_co", bound=Reply, covariant=True)


class Schema(Protocol[ReplyT_co]):
    """Reads and validates replies of one type."""

    def validate(self, message: Message, clients: Sequence[int]) -> ReplyT_co:
        """Return the content of a reply.

        Args:
            message: the reply.
            clients: the clients that the node was asked about.

        Raises:
            InvalidReplyError: if no honest node would send this reply.
        """
        ...


@dataclass(frozen=True, slots=True)
class ReplySchema:
    """The expected content of training replies.

    Attributes:
        shapes: full shape of every trained parameter, or of every statistic, by name.
        tables: names of those with a row per item.
        num_items: size of the catalogue.
        limits: limits of honest updates; for statistics, only the weight is limited.
        individual_updates: whether nodes send individual updates instead of a sum.
        statistics: whether nodes send sufficient statistics instead of updates.
        row_weights: whether nodes send the weight of each row, that is, the sum of the weights of
            the clients that touched it.
        losses_below_zero: whether an honest client's loss may be negative.
    """

    shapes: Shapes
    tables: Collection[str]
    num_items: int
    limits: Limits
    individual_updates: bool
    statistics: bool
    row_weights: bool
    losses_below_zero: bool

    def validate(self, message: Message, clients: Sequence[int]) -> TrainReply:
        """Read a reply and check it; see `Schema.validate`."""
        reply = read_reply(message, TrainReply.from_record)
        self.check(reply, clients)
        return reply

    def check(self, reply: TrainReply, clients: Sequence[int]) -> None:
        """Check a reply.

        Args:
            reply: the reply.
            clients: the clients that the node was asked to train.

        Raises:
            InvalidReplyError: if no honest node would send this reply.
        """
        self._check_metrics(reply, clients)
        if not reply.arrays and (not self.shapes or not reply.replied):
            # No tensors are expected, or no client replied: then no weight may be claimed.
            is_empty = not self.shapes or reply.weight == 0
            _require(is_empty, FailureKind.WRONG_WEIGHT, f"{reply.weight:g} without any client")
            return
        if self.individual_updates:
            self._check_individual(reply, clients)
        else:
            self._check_sum(reply)

    def _check_metrics(self, reply: TrainReply, clients: Sequence[int]) -> None:
        max_weight = self.limits.weight * len(clients)
        _require(
            0 <= reply.weight <= max_weight,
            FailureKind.WRONG_WEIGHT,
            f"{reply.weight:g} is not between 0 and {max_weight:g}",
        )
        _require(
            0 <= reply.replied <= len(clients) and set(reply.failures) <= set(clients),
            FailureKind.MALFORMED,
            "it contains clients that were not asked",
        )
        _require(reply.bytes_up >= 0, FailureKind.MALFORMED, f"{reply.bytes_up} bytes")
        has_valid_loss = self.statistics or bool(np.isfinite(reply.loss))  # statistics have no loss
        _require(has_valid_loss, FailureKind.NOT_FINITE, f"the loss is {reply.loss}")

    def _check_sum(self, reply: TrainReply) -> None:
        """Check a reply with a sum of updates or statistics."""
        arrays = reply.arrays
        is_packed = ROWS in arrays
        rows = arrays.get(ROWS, np.zeros(0, np.int64))
        self._check_rows(rows, np.array([0, rows.size]))
        num_rows = len(rows) if is_packed else self.num_items
        shapes = {name: self._packed_shape(name, num_rows) for name in self.shapes}
        shapes[ROW_WEIGHT] = (num_rows,) if self.row_weights else (0,)
        _check_shapes({name: value for name, value in arrays.items() if name != ROWS}, shapes)
        packed_names = {*self.tables, ROW_WEIGHT} & {*shapes} if is_packed else set[str]()
        _require(
            reply.num_rows == dict.fromkeys(packed_names, self.num_items),
            FailureKind.WRONG_SHAPE,
            f"{reply.num_rows} rows",
        )
        limits = dict.fromkeys(shapes, np.inf if self.statistics else self.limits.value)
        limits[ROW_WEIGHT] = 1.0
        for name, limit in limits.items():
            _check_values(name, arrays[name], limit * max(reply.weight, 0) * _RELATIVE_TOLERANCE)
        _require(
            arrays[ROW_WEIGHT].min(initial=0) >= 0,
            FailureKind.WRONG_WEIGHT,
            "the weight of a row is negative",
        )
        if self.row_weights:
            for name in {*self.tables} & {*self.shapes}:
                self._check_row_sums(name, arrays[name], arrays[ROW_WEIGHT])

    def _check_row_sums(self, name: str, total: Float32Array, weight: Float32Array) -> None:
        """Check that no row's mean, its sum over its weight, exceeds the limit of one update."""
        value_axes = tuple(range(1, total.ndim))
        largest = np.maximum(total.max(value_axes, initial=0), -total.min(value_axes, initial=0))
        limit = self.limits.value * _RELATIVE_TOLERANCE * weight.astype(np.float64)
        _require(
            not (largest > limit).any(),
            FailureKind.HUGE,
            f"{name} has rows beyond the limit for their weights",
        )

    def _check_individual(self, reply: TrainReply, clients: Sequence[int]) -> None:
        """Check a reply with individual updates."""
        updates, losses = individual_updates(reply)
        num_clients = len(updates.clients)
        num_rows = len(updates.rows)
        _require(
            num_clients == reply.replied == len(np.unique(updates.clients))
            and set(updates.clients.tolist()) <= set(clients),
            FailureKind.MALFORMED,
            "it contains clients that were not asked, or a client twice",
        )
        offsets = updates.offsets
        per_client = (updates.weights, offsets[1:], losses)
        _require(
            all(array.shape == (num_clients,) for array in per_client)
            and updates.clients.dtype.kind == offsets.dtype.kind == "i"
            and offsets[0] == 0 <= np.diff(offsets).min(initial=0)
            and offsets[-1] == num_rows,
            FailureKind.WRONG_SHAPE,
            "the layout of the updates",
        )
        all_finite = bool(np.isfinite(losses).all())
        _require(all_finite, FailureKind.NOT_FINITE, "the loss of a client")
        _require(
            self.losses_below_zero or bool(losses.min(initial=0) >= -_LOSS_TOLERANCE),
            FailureKind.WRONG_LOSS,
            "the loss of a client is negative",
        )
        self._check_rows(updates.rows, offsets)
        shapes = {
            name: self._packed_shape(name, num_rows)
            if name in self.tables
            else (num_clients, *shape)
            for name, shape in self.shapes.items()
        }
        _check_shapes(updates.tensors, shapes)
        # An honest node removes updates beyond the limits itself.
        for failure in self.limits.violations(updates, self.tables).values():
            raise InvalidReplyError(failure.kind, failure.detail)
        _require(
            bool(np.isclose(updates.weights.sum(), reply.weight, atol=0)),
            FailureKind.WRONG_WEIGHT,
            f"{reply.weight:g} is not the sum of the clients' weights",
        )

    def _packed_shape(self, name: str, num_rows: int) -> tuple[int, ...]:
        """Return the shape of a tensor if `num_rows` rows of a table are sent."""
        shape = self.shapes[name]
        return (num_rows, *shape[1:]) if name in self.tables else shape

    def _check_rows(self, rows: IndexArray, offsets: IndexArray) -> None:
        """Check that rows are item codes that ascend within each client.

        Args:
            rows: codes of the rows, one client's after another's.
            offsets: int64 (num_clients + 1,), first row of each client.
        """
        is_codes = rows.ndim == 1 and rows.dtype.kind == "i"
        _require(is_codes, FailureKind.WRONG_ROWS, "they are not item codes")
        if not len(rows):
            return
        _require(
            bool(rows.min() >= 0 and rows.max() < self.num_items),
            FailureKind.WRONG_ROWS,
            f"they must be between 0 and {self.num_items - 1}",
        )
        descents = np.flatnonzero(np.diff(rows.astype(np.int64)) <= 0) + 1
        ascending = set(descents.tolist()) <= set(offsets.tolist())
        _require(ascending, FailureKind.WRONG_ROWS, "they do not ascend")


@dataclass(frozen=True, slots=True)
class EvaluateReplySchema:
    """The expected content of evaluation replies.

    Attributes:
        bounds: limits of honest metric sums.
    """

    bounds: Bounds

    def validate(self, message: Message, clients: Sequence[int]) -> EvaluateReply:
        """Read a reply and check it; see `Schema.validate`."""
        reply = read_reply(message, EvaluateReply.from_record)
        num_users = int(self.bounds.num_users[clients].sum())
        _require(
            (reply.num_clients, reply.num_users) == (len(clients), num_users),
            FailureKind.MALFORMED,
            f"it contains {reply.num_clients} clients with {reply.num_users} users, but "
            f"{len(clients)} clients with {num_users} users were asked",
        )
        if failure := self.bounds.violation(reply.sums, clients):
            raise InvalidReplyError(failure.kind, failure.detail)
        return reply


@dataclass(frozen=True, slots=True)
class ValidReplies(Generic[ReplyT]):
    """The valid replies of a round or evaluation, and the failures of all other clients.

    Attributes:
        replies: at most one per node, in the order in which the nodes were asked.
        failures: why other clients have no reply or a rejected one, by client code.
    """

    replies: list[ReplyT]
    failures: dict[int, Failure]

    @classmethod
    def collect(
        cls,
        messages: Iterable[Message],
        asked: Mapping[int, Sequence[int]],
        schema: Schema[ReplyT],
    ) -> "ValidReplies[ReplyT]":
        """Validate each message before any reply is used.

        Args:
            messages: the received messages.
            asked: for each node id, the clients that the node was asked about.
            schema: validates a reply.
        """
        valid: dict[int, ReplyT] = {}
        repeated: dict[int, Failure] = {}
        no_reply = Failure(FailureKind.SILENT, "its node did not answer in time")
        node_failures = dict.fromkeys(asked, no_reply)
        for message in messages:
            node = message.metadata.src_node_id
            if node not in asked:
                _LOG.warning("left out a reply of node %d, which was not asked", node)
            elif node in valid:
                failure = Failure(FailureKind.REPEATED, "counted once")
                repeated |= dict.fromkeys(asked[node], failure)
            else:
                try:
                    valid[node] = schema.validate(message, asked[node])
                except InvalidReplyError as error:
                    node_failures[node] = error.failure
        failures = repeated
        for node, clients in asked.items():
            if node in valid:
                failures |= valid[node].failures
            else:
                failures |= dict.fromkeys(clients, node_failures[node])
        return cls([valid[node] for node in asked if node in valid], failures)


def update_sum(replies: Iterable[TrainReply]) -> UpdateSum:
    """Add the sums in training replies, in the given order."""
    total = Sums()
    weight = 0.0
    for reply in replies:
        add_packed(total, reply.arrays, reply.num_rows)
        weight += reply.weight
    row_weight = total.pop(ROW_WEIGHT, np.zeros(0))
    return UpdateSum(total, weight, row_weight)


def each_update(
    replies: Iterable[TrainReply], tables: Collection[str]
) -> tuple[Updates, Float64Array]:
    """Return all individual updates and the clients' mean training losses, ascending by client.

    Args:
        replies: replies with individual updates, at least one that is not empty.
        tables: names of the parameters with a row per item.
    """
    parts = [individual_updates(reply) for reply in replies if reply.arrays]
    updates = Updates.joined([part for part, _ in parts])
    losses = np.concatenate([part_losses for _, part_losses in parts])
    order = np.argsort(updates.clients)  # nodes train their largest clients first
    return updates.select(order, tables), losses[order]


def individual_updates(reply: TrainReply) -> tuple[Updates, Float64Array]:
    """Return the individual updates of a reply, and float64 (num_clients,) mean training losses.

    Raises:
        InvalidReplyError: if the arrays with the layout of the updates are missing or not flat.
    """
    if missing := set(LAYOUT) - reply.arrays.keys():
        raise InvalidReplyError(FailureKind.MALFORMED, f"it lacks {sorted(missing)}")
    clients, weights, offsets, rows, losses = (reply.arrays[name] for name in LAYOUT)
    all_flat = all(array.ndim == 1 for array in (clients, weights, offsets, rows, losses))
    if not all_flat or not len(offsets):
        raise InvalidReplyError(FailureKind.WRONG_SHAPE, "the layout of the updates")
    tensors = {name: value for name, value in reply.arrays.items() if name not in LAYOUT}
    return Updates(clients, weights, offsets, rows, tensors), losses


def _check_shapes(arrays: Arrays, shapes: Shapes) -> None:
    if arrays.keys() != shapes.keys():
        detail = f"{sorted(arrays)} instead of {sorted(shapes)}"
        raise InvalidReplyError(FailureKind.WRONG_NAMES, detail)
    for name, value in arrays.items():
        if value.shape != shapes[name]:
            detail = f"{name} has {value.shape} instead of {shapes[name]}"
            raise InvalidReplyError(FailureKind.WRONG_SHAPE, detail)
        if value.dtype.kind != "f":  # squares of integers wrap around and may seem small
            raise InvalidReplyError(FailureKind.MALFORMED, f"{name} is of {value.dtype}")


def _check_values(name: str, value: Float32Array, limit: float) -> None:
    low = value.min(initial=0)
    high = value.max(initial=0)
    if not np.isfinite([low, high]).all():  # NaN anywhere makes both NaN
        raise InvalidReplyError(FailureKind.NOT_FINITE, name)
    if max(-low, high) > limit:
        raise InvalidReplyError(FailureKind.HUGE, f"{name} has values beyond {limit:g}")


def _require(condition: bool, kind: FailureKind, detail: str) -> None:  # noqa: FBT001  # reads like assert
    if not condition:
        raise InvalidReplyError(kind, detail)

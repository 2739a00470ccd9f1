"""What a sound reply of a node looks like, whatever the node itself says of it.

What nodes reply: sorted out, added up, and left out where no honest node would send it.
"""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.packing import ROWS, Sums, add_packed
from fedrec_flower.communication.train_reply import (
    Arrays,
    Reply,
    UnsoundError,
    read,
    without_wrapping,
)
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.updates import LAYOUT, ROW_WEIGHT, Updates, UpdateSum

Shapes = Mapping[str, tuple[int, ...]]

_ROUNDING = 1 + 1e-5  # sums travel as float32
_NOTHING = 1e-6  # a loss of nothing may come out as far below zero


@dataclass(frozen=True, slots=True)
class Expected:
    """What a node's reply looks like.

    Attributes:
        shapes: full shape of every parameter that is trained, or of every statistic.
        tables: names of those with a row per item.
        num_items: size of the catalogue.
        limits: what no honest update exceeds; of statistics only the weight is limited.
        stacked: whether every update goes by itself.
        statistics: whether statistics travel.
        rows: whether the weight of each row travels, by the clients that touched it.
        losses_below_zero: whether an honest client's loss may be negative.
    """

    shapes: Shapes
    tables: Collection[str]
    num_items: int
    limits: Limits
    stacked: bool
    statistics: bool
    rows: bool
    losses_below_zero: bool

    def heard(self, message: Message, clients: Sequence[int]) -> Reply:
        """Read a reply, and refuse one that no honest node would send; see `check`."""
        reply = read(message)
        self.check(reply, clients)
        return reply

    def check(self, reply: Reply, clients: Sequence[int]) -> None:
        """Refuse a reply that no honest node would send.

        Args:
            reply: what the node said.
            clients: the clients that it was asked to train.

        Raises:
            UnsoundError: says what is wrong.
        """
        self._check_numbers(reply, clients)
        if not reply.arrays and (not self.shapes or not reply.replied):
            # Nothing travels, or there is nothing to tell, and so nothing that could weigh.
            silent = not self.shapes or reply.weight == 0
            _require(silent, f"wrong_weight: {reply.weight:g} of nobody")
            return
        if self.stacked:
            self._check_each(reply, clients)
        else:
            self._check_sum(reply)

    def _check_numbers(self, reply: Reply, clients: Sequence[int]) -> None:
        """The numbers beside the arrays."""
        most = self.limits.weight * len(clients)
        if not 0 <= reply.weight <= most:
            raise UnsoundError(f"wrong_weight: {reply.weight:g} is not between 0 and {most:g}")
        _require(
            0 <= reply.replied <= len(clients) and set(reply.lost) <= set(clients),
            "malformed: it speaks for clients that were not asked",
        )
        _require(reply.bytes_up >= 0, f"malformed: {reply.bytes_up} bytes")
        sound = self.statistics or np.isfinite(reply.loss)  # statistics have no loss
        _require(bool(sound), f"not_finite: the loss is {reply.loss}")

    def _check_sum(self, reply: Reply) -> None:
        arrays, packed = reply.arrays, ROWS in reply.arrays
        rows = arrays.get(ROWS, np.zeros(0, np.int64))
        self._check_rows(rows, np.array([0, rows.size]))
        num_rows = len(rows) if packed else self.num_items
        shapes = {n: self._within(n, num_rows) for n in self.shapes}
        shapes[ROW_WEIGHT] = (num_rows,) if self.rows else (0,)
        _check_shapes({n: v for n, v in arrays.items() if n != ROWS}, shapes)
        left_out = dict.fromkeys({*self.tables, ROW_WEIGHT} & {*shapes}, self.num_items)
        _require(
            reply.num_rows == (left_out if packed else {}),
            f"wrong_shape: {reply.num_rows} rows",
        )
        limits = dict.fromkeys(shapes, np.inf if self.statistics else self.limits.value)
        limits[ROW_WEIGHT] = 1.0
        for name, limit in limits.items():
            _check_values(name, arrays[name], limit * max(reply.weight, 0) * _ROUNDING)
        _require(arrays[ROW_WEIGHT].min(initial=0) >= 0, "wrong_weight: a row's is negative")
        for name in {*self.tables} & {*self.shapes} if self.rows else ():
            self._check_row_sums(name, arrays[name], arrays[ROW_WEIGHT])

    def _check_row_sums(
        self, name: str, total: NDArray[np.float32], weight: NDArray[np.float32]
    ) -> None:
        """A row's sum is divided by the row's weight: no mean may exceed what one update may."""
        width = tuple(range(1, total.ndim))
        largest = np.maximum(total.max(width, initial=0), -total.min(width, initial=0))
        beyond = largest > self.limits.value * _ROUNDING * weight.astype(np.float64)
        _require(not beyond.any(), f"huge: {name} has rows beyond what their weights allow")

    def _check_each(self, reply: Reply, clients: Sequence[int]) -> None:
        updates, loss = separated(reply)
        count, rows = len(updates.clients), updates.rows
        _require(
            count == reply.replied == len(np.unique(updates.clients))
            and set(updates.clients.tolist()) <= set(clients),
            "malformed: it speaks for clients that were not asked, or twice for one",
        )
        layout = (updates.weights, updates.offsets[1:], loss)
        cuts = updates.offsets
        _require(
            all(array.shape == (count,) for array in layout)
            and updates.clients.dtype.kind == cuts.dtype.kind == "i"
            and cuts[0] == 0 <= np.diff(cuts).min(initial=0)
            and cuts[-1] == len(rows),
            "wrong_shape: how the updates lie",
        )
        _require(bool(np.isfinite(loss).all()), "not_finite: a client's loss")
        above = self.losses_below_zero or loss.min(initial=0) >= -_NOTHING
        _require(bool(above), "wrong_loss: a client's is negative")
        self._check_rows(rows, cuts)
        shapes = {
            name: self._within(name, len(rows)) if name in self.tables else (count, *shape)
            for name, shape in self.shapes.items()
        }
        _check_shapes(updates.tensors, shapes)
        wrong = self.limits.faults(updates, self.tables)
        if wrong:  # an honest node would have left it out itself
            raise UnsoundError(next(iter(wrong.values())))
        same = np.isclose(updates.weights.sum(), reply.weight, atol=0)
        _require(bool(same), f"wrong_weight: {reply.weight:g} is not the sum of its clients'")

    def _within(self, name: str, num_rows: int) -> tuple[int, ...]:
        """The shape of a tensor when some rows of a table are sent."""
        shape = self.shapes[name]
        return (num_rows, *shape[1:]) if name in self.tables else shape

    def _check_rows(self, rows: NDArray[np.int64], cuts: NDArray[np.int64]) -> None:
        """Item codes, ascending within each stretch."""
        _require(rows.ndim == 1 and rows.dtype.kind == "i", "wrong_rows: they are no item codes")
        if not len(rows):
            return
        _require(
            bool(rows.min() >= 0 and rows.max() < self.num_items),
            f"wrong_rows: there are items 0 to {self.num_items - 1} alone",
        )
        falls = np.flatnonzero(np.diff(rows.astype(np.int64)) <= 0) + 1
        _require(set(falls.tolist()) <= set(cuts.tolist()), "wrong_rows: they do not ascend")


def separated(reply: Reply) -> tuple[Updates, NDArray[np.float64]]:
    """The updates of a reply in which each goes by itself, and the mean training losses.

    Raises:
        UnsoundError: if what says how they lie is missing.
    """
    if missing := set(LAYOUT) - reply.arrays.keys():
        raise UnsoundError(f"malformed: it lacks {sorted(missing)}")
    clients, weights, offsets, rows, loss = (reply.arrays[name] for name in LAYOUT)
    if any(array.ndim != 1 for array in (clients, weights, offsets, rows, loss)) or not len(
        offsets
    ):
        raise UnsoundError("wrong_shape: how the updates lie")
    tensors = {name: value for name, value in reply.arrays.items() if name not in LAYOUT}
    return Updates(clients, weights, offsets, rows, tensors), loss


def _check_shapes(arrays: Arrays, shapes: Shapes) -> None:
    if arrays.keys() != shapes.keys():
        raise UnsoundError(f"wrong_names: {sorted(arrays)} instead of {sorted(shapes)}")
    for name, value in arrays.items():
        if value.shape != shapes[name]:
            raise UnsoundError(f"wrong_shape: {name} has {value.shape} instead of {shapes[name]}")
        if value.dtype.kind != "f":  # squares of integers wrap round, and look harmless
            raise UnsoundError(f"malformed: {name} is of {value.dtype}")


def _check_values(name: str, value: NDArray[np.float32], limit: float) -> None:
    low, high = value.min(initial=0), value.max(initial=0)
    if not np.isfinite([low, high]).all():  # either is NaN where any value is
        raise UnsoundError(f"not_finite: {name}")
    if max(-low, high) > limit:
        raise UnsoundError(f"huge: {name} has values beyond {limit:g}")


def _require(sound: bool, reason: str) -> None:  # noqa: FBT001  # reads like assert
    if not sound:
        raise UnsoundError(reason)


_LOG = logging.getLogger(__name__)


class Said(Protocol):
    """What a node says, whatever it was asked."""

    @property
    def lost(self) -> Mapping[int, str]:
        """Why some of its clients did not reply soundly, by client code."""
        ...


Read = TypeVar("Read", bound=Said)
Told_co = TypeVar("Told_co", bound=Said, covariant=True)


class Expectation(Protocol[Told_co]):
    """What a reply looks like."""

    def heard(self, message: Message, clients: Sequence[int]) -> Told_co:
        """What a node says of the clients that it was asked about; an UnsoundError says why not."""
        ...


@dataclass(frozen=True, slots=True)
class Sound(Generic[Read]):
    """Replies that may be used, and what became of the others.

    Attributes:
        replies: at most one of each node that was asked, in the order in which they were.
        lost: by client code why its reply is missing or left out, as "kind: detail".
    """

    replies: list[Read]
    lost: dict[int, str]

    @classmethod
    def sort_out(
        cls,
        messages: Iterable[Message],
        asked: Mapping[int, Sequence[int]],
        expected: Expectation[Read],
    ) -> "Sound[Read]":
        """Look at each reply before anything is added up.

        Args:
            messages: what came back.
            asked: the clients that each node was asked about.
            expected: what a reply of a node looks like.
        """
        sound: dict[int, Read] = {}
        repeated: dict[int, str] = {}
        failed = dict.fromkeys(asked, "silent: its node did not answer in time")
        for message in messages:
            node = message.metadata.src_node_id
            if node not in asked:
                _LOG.warning("left out a reply of node %d, which was not asked", node)
            elif node in sound:
                repeated |= dict.fromkeys(asked[node], "repeated: counted once")
            else:
                try:
                    sound[node] = expected.heard(message, asked[node])
                except UnsoundError as verdict:
                    failed[node] = str(verdict)
        lost = repeated
        for node, clients in asked.items():
            lost |= sound[node].lost if node in sound else dict.fromkeys(clients, failed[node])
        return cls([sound[node] for node in asked if node in sound], lost)


def checked(replies: Iterable[Message], expected: int) -> list[Message]:
    """The replies, if every node answered and none failed.

    Raises:
        TrainingError: names the node's own error, or how many nodes stayed silent.
    """
    received = list(replies)
    for reply in received:
        if reply.has_error():
            said = without_wrapping(reply.error.reason or "it gave no reason")
            raise TrainingError(f"a node failed: {said}")
    if len(received) < expected:
        raise TrainingError(f"only {len(received)} of {expected} nodes answered in time")
    return received


def update_sum(replies: Iterable[Reply]) -> UpdateSum:
    """The sum of the updates in training replies, added in the order given."""
    total, weight = Sums(), 0.0
    for reply in replies:
        add_packed(total, reply.arrays, reply.num_rows)
        weight += reply.weight
    row_weight = total.pop(ROW_WEIGHT, np.zeros(0))
    return UpdateSum(total, weight, row_weight)


def each_update(
    replies: Iterable[Reply], tables: Collection[str]
) -> tuple[Updates, NDArray[np.float64]]:
    """Every update by itself, ascending by client, and the clients' mean training losses.

    Args:
        replies: at least one with updates.
        tables: names of the parameters with a row per item.
    """
    parts = [separated(reply) for reply in replies if reply.arrays]
    updates = Updates.joined([part for part, _ in parts])
    losses = np.concatenate([loss for _, loss in parts])
    order = np.argsort(updates.clients)  # nodes train the largest clients first
    return updates.select(order, tables), losses[order]

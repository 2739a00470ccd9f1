"""A grid with a short polling interval that an interrupted run can leave."""

import threading
import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from typing_extensions import override

from fedrec_flower.core.errors import FedrecError


class StoppableGrid(Grid):
    """Wraps Flower's grid: polls more often, and raises as soon as the run is interrupted.

    Args:
        grid: Flower's grid.
        num_nodes: number of nodes that must be registered before the first message is sent.
        poll_seconds: time between two polls for replies.
        stop: set when the run must end.
        new_messages: set by this grid when it has pushed messages to the nodes.
    """

    def __init__(
        self,
        grid: Grid,
        num_nodes: int,
        poll_seconds: float,
        stop: threading.Event,
        new_messages: threading.Event,
    ) -> None:
        self._grid = grid
        self._num_nodes = num_nodes
        self._poll_seconds = poll_seconds
        self._stop = stop
        self._new_messages = new_messages

    @override
    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    @property
    @override
    def run(self) -> Run:
        return self._grid.run

    @override
    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    @override
    def get_node_ids(self) -> Iterable[int]:
        """Return all nodes; waits until `num_nodes` of them are registered."""
        while len(nodes := list(self._grid.get_node_ids())) < self._num_nodes:
            self._wait()
        return nodes

    @override
    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        pushed = self._grid.push_messages(messages)
        self._new_messages.set()
        return pushed

    @override
    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._grid.pull_messages(message_ids)

    @override
    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        waiting = set(self.push_messages(messages))
        replies: list[Message] = []
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while waiting and time.monotonic() < end:
            arrived = list(self.pull_messages(waiting))
            replies += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if not arrived:
                self._wait()
        return replies

    def _wait(self) -> None:
        if self._stop.wait(self._poll_seconds):
            raise FedrecError("the run was interrupted")

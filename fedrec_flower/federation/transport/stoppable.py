"""A grid that is looked at as often as a run needs, and that a run can leave."""

import threading
import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from fedrec_flower.core.errors import FedrecError


class StoppableGrid(Grid):
    """Flower's grid, looked at more often, and left at once when the run is interrupted.

    Args:
        grid: the engine's own grid.
        num_nodes: nodes to wait for before the first message.
        glance: seconds between looks for replies.
        stop: set when the run is to end.
        mail: to be set when there are messages for the nodes.
    """

    def __init__(
        self,
        grid: Grid,
        num_nodes: int,
        glance: float,
        stop: threading.Event,
        mail: threading.Event,
    ) -> None:
        self._grid, self._num_nodes, self._glance = grid, num_nodes, glance
        self._stop, self._mail = stop, mail

    def set_run(self, run: Run) -> None:
        """See `Grid.set_run`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """See `Grid.run`."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid.create_message`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, once the engine has registered every one of them."""
        while len(nodes := list(self._grid.get_node_ids())) < self._num_nodes:
            self._wait()
        return nodes

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `Grid.push_messages`."""
        pushed = self._grid.push_messages(messages)
        self._mail.set()
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `Grid.pull_messages`."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """See `Grid.send_and_receive`."""
        waiting, replies = set(self.push_messages(messages)), list[Message]()
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while waiting and time.monotonic() < end:
            arrived = list(self.pull_messages(waiting))
            replies += arrived
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if not arrived:
                self._wait()
        return replies

    def _wait(self) -> None:
        if self._stop.wait(self._glance):
            raise FedrecError("the run was interrupted")

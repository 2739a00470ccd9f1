"""A Grid without a network: calls the ClientApp directly, so a debugger walks through a round."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedrec_flower.federation.client.app import app as client_app
from fedrec_flower.federation.transport.simulation import flower_logs_to

_RUN_ID = 1


class InProcessGrid(Grid):
    """Delivers each message at once, one after another, in this process.

    Args:
        app: the ClientApp of every node.
        num_nodes: how many nodes there are; their ids are 1 to num_nodes.
        own: what else each node's `--node-config` says; nothing by default.
    """

    def __init__(
        self,
        app: ClientApp,
        num_nodes: int,
        own: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        # Flower makes a Message only inside a task; here we are the task. This file alone touches
        # internals of Flower (the task's identity, `Run`, a message's id): a test holds them
        # against the pinned version.
        TaskIdentity.run_id, TaskIdentity.node_id = _RUN_ID, SUPERLINK_NODE_ID
        TaskIdentity.task_id = 1
        self._app, self._run = app, Run.create_empty(_RUN_ID)
        self._replies: dict[str, Message] = {}
        self._contexts = {
            node: Context(
                run_id=_RUN_ID,
                node_id=node,
                node_config={
                    "partition-id": node - 1,
                    "num-partitions": num_nodes,
                    **(own or {}),
                },
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, num_nodes + 1)
        }

    def set_run(self, run: Run) -> None:
        """See `Grid.set_run`."""
        self._run = run

    @property
    def run(self) -> Run:
        """See `Grid.run`."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See `Grid.create_message`."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid.get_node_ids`."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the ClientApp on each message; a node's exception is the caller's."""
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            context = self._contexts[message.metadata.dst_node_id]
            self._replies[message.metadata.message_id] = self._app(message, context)
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Give each reply once."""
        return [self._replies.pop(key) for key in message_ids if key in self._replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Run the ClientApp on each message and return the replies; nothing can time out."""
        del timeout
        return self.pull_messages(self.push_messages(messages))


@dataclass(frozen=True, slots=True)
class InProcess:
    """`federation=in_process`: starts in milliseconds; for tests, notebooks, small sweeps.

    Attributes:
        num_nodes: how many nodes host the clients; see the package for what depends on it.
    """

    num_nodes: int

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Give the server's side a grid and wait for it; Flower's log goes to the file."""
        with flower_logs_to(log):
            serve(InProcessGrid(client_app, self.num_nodes))

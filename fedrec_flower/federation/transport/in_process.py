"""A Grid without a network: it calls the ClientApp directly, and a debugger can step through it."""

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
from typing_extensions import override

from fedrec_flower.federation.client.app import app as client_app
from fedrec_flower.federation.transport.flower_log import flower_logs_to

_RUN_ID = 1


class InProcessGrid(Grid):
    """Delivers messages one after another in this process.

    Args:
        app: the ClientApp of every node.
        num_nodes: number of nodes; their ids are 1 to num_nodes.
        node_config: further entries of each node's `--node-config`.
    """

    def __init__(
        self,
        app: ClientApp,
        num_nodes: int,
        node_config: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        # Flower creates a Message only inside a task, so the task's identity is set here. It is an
        # internal of Flower, like `Run` and a message's id; a test checks them against the pinned
        # version.
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
                    **(node_config or {}),
                },
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, num_nodes + 1)
        }

    @override
    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    @override
    def run(self) -> Run:
        return self._run

    @override
    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    @override
    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    @override
    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Call the ClientApp with each message; an exception of a node is raised here."""
        pushed = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            context = self._contexts[message.metadata.dst_node_id]
            self._replies[message.metadata.message_id] = self._app(message, context)
            pushed.append(message.metadata.message_id)
        return pushed

    @override
    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies; each reply is returned once."""
        return [self._replies.pop(key) for key in message_ids if key in self._replies]

    @override
    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Call the ClientApp with each message and return the replies; there is no timeout."""
        del timeout
        return self.pull_messages(self.push_messages(messages))


@dataclass(frozen=True, slots=True)
class InProcess:
    """`federation=in_process`: starts in milliseconds; for tests, notebooks and small sweeps.

    Attributes:
        num_nodes: number of nodes that host the clients. Results depend on it by rounding only,
            see the package docstring.
    """

    num_nodes: int

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Call `serve` with a grid; Flower's log goes to the file."""
        with flower_logs_to(log):
            serve(InProcessGrid(client_app, self.num_nodes))

"""Message handlers of a node: unpack a message, compute with a `NumPyClient`, pack the reply.

The handlers are the same for all nodes. The ClientApps (`app`, `deployed`) decide where a node's
data and settings come from.
"""

import torch
from flwr.app import Context, Message

from fedrec_flower.communication.schema import (
    EvaluateReply,
    EvaluateRequest,
    QueryReply,
    TrainRequest,
    read_config,
    sums_of,
)
from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.federation.client import secure_client
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.node import Node

_COUNT = "num-partitions"


def query(node: Node, message: Message, context: Context) -> Message:
    """Reply with the clients that this node hosts."""
    reply = QueryReply(_hosted(node, context))
    return Message(reply.to_record(), reply_to=message)


def train(node: Node, message: Message, context: Context) -> Message:
    """Train the clients in the message; reply with a sum or with individual updates."""
    _require_hosted(message, node, context)
    secure_client.refuse_plain(node)
    request = TrainRequest.from_record(message.content)
    result = CohortClient(node, request.clients).train(request.arrays, request.config)
    reply = result.reply(node.trainer.names, node.trainer.tables)
    return Message(reply.to_record(), reply_to=message)


def train_masked(node: Node, message: Message, context: Context) -> Message:
    """Handle one stage of secure aggregation; the mask stage trains as `train` does."""
    _require_hosted(message, node, context)
    content = secure_client.serve(node, message.content, context.state)
    return Message(content, reply_to=message)


def evaluate(node: Node, message: Message, context: Context) -> Message:
    """Evaluate the clients in the message; store a snapshot if the message asks for one."""
    _require_hosted(message, node, context)
    request = EvaluateRequest.from_record(message.content)
    if request.snapshot:
        node.store.snapshot(_hosted(node, context), request.snapshot, request.round)
    else:
        node.store.require_snapshot(request.clients, request.slot, request.round)
    client = CohortClient(node, request.clients)
    _, num_users, metrics = client.evaluate(request.arrays, request.config)
    reply = EvaluateReply(sums_of(metrics), len(request.clients), num_users)
    return Message(reply.to_record(), reply_to=message)


def use_one_thread() -> None:
    """Use one PyTorch thread: recommenders are small, and each worker has one core."""
    torch.set_num_threads(1)


def _require_hosted(message: Message, node: Node, context: Context) -> None:
    """Require that this node hosts all clients of a request.

    Raises:
        TrainingError: names a client that another node hosts.
    """
    hosted = _hosted(node, context)
    clients = read_config(message.content).get("clients", ())
    strangers = [client for client in clients if client not in hosted]
    if strangers:
        raise TrainingError(
            f"client {strangers[0]} is asked for, and this node hosts clients {hosted.start} to "
            f"{hosted.stop - 1}"
        )


def _hosted(node: Node, context: Context) -> range:
    try:
        number, count = (int(context.node_config[name]) for name in ("partition-id", _COUNT))
    except KeyError as missing:
        raise ConfigError(
            f"a node has no {missing.args[0]}: start it with --node-config "
            "'partition-id=0 num-partitions=3 ...', each node with a partition-id of its own"
        ) from missing
    if not 0 <= number < count <= node.data.num_clients:
        raise ConfigError(
            f"a node has partition-id={number} and num-partitions={count}, and there are "
            f"{node.data.num_clients} clients: give ids from 0 to num-partitions - 1, and no more "
            "nodes than clients"
        )
    return node.data.hosted_by(number, count)

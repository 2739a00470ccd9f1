"""What a node does with a message: unpack it, let a `NumPyClient` compute, pack the reply.

The same for every node; how it comes by its data is said by the ClientApp (`app`, `deployed`).
"""

from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedrec_flower.communication.packing import pack
from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.core.updates import ROW_WEIGHT
from fedrec_flower.federation.client import secure_client as masking
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.node import Node

_COUNT = "num-partitions"


def query(node: Node, message: Message, context: Context) -> Message:
    """Say which clients this node hosts, `first` up to but without `stop`."""
    hosted = _hosted(node, context)
    reply = ConfigRecord({"first": hosted.start, "stop": hosted.stop})
    return Message(RecordDict({"hosted": reply}), reply_to=message)


def train(node: Node, message: Message, context: Context) -> Message:
    """Train the clients that the message names; reply with sums, or with every update."""
    config = _about_own_clients(node, message, context)
    masking.refuse_plain(node)
    client = CohortClient(node, config["clients"])
    answer = client.train(_parameters(message), config)
    names = node.trainer.names
    named = dict(zip(answer.array_names(names), answer.arrays(names), strict=True))
    tables = [name for name in named if name in {*node.trainer.tables, ROW_WEIGHT}]
    packed, num_rows = pack(named, tables)
    metrics = answer.metrics()
    lost = {"clients": metrics.pop("lost"), "reasons": metrics.pop("reasons")}
    content = RecordDict(
        {
            "update": ArrayRecord({name: Array(value) for name, value in packed.items()}),
            "num_rows": ConfigRecord({**num_rows}),
            "lost": ConfigRecord(lost),
            "metrics": MetricRecord({"num_examples": answer.weight, **metrics}),
        }
    )
    return Message(content, reply_to=message)


def train_masked(node: Node, message: Message, context: Context) -> Message:
    """Pass one stage of secure aggregation, one of which trains as `train` does."""
    config = _about_own_clients(node, message, context)
    request = dict(message.content.config_records["secure"])
    content = masking.serve(node, config, request, _parameters(message), context.state)
    return Message(content, reply_to=message)


def evaluate(node: Node, message: Message, context: Context) -> Message:
    """Evaluate the clients that the message names; keep a snapshot where it says so."""
    config = _about_own_clients(node, message, context)
    if config["snapshot"]:
        hosted = _hosted(node, context)
        cuts = node.data.client_offsets
        users = slice(int(cuts[hosted.start]), int(cuts[hosted.stop]))
        node.store.snapshot(hosted, users, config["snapshot"], config["round"])
    else:
        node.store.require_snapshot(config["clients"], config["slot"], config["round"])
    client = CohortClient(node, config["clients"])
    _, num_users, metrics = client.evaluate(_parameters(message), config)
    counts = {"num_clients": len(config["clients"]), "num_users": num_users}
    content = RecordDict({"metrics": MetricRecord({**counts, **metrics})})
    return Message(content, reply_to=message)


def config_of(message: Message) -> dict[str, Any]:
    """The fields that a message carries beside parameters."""
    return dict(message.content.config_records["config"])


def use_one_thread() -> None:
    """Compute with one thread: recommenders are small, and every worker has a core of its own."""
    torch.set_num_threads(1)


def _about_own_clients(node: Node, message: Message, context: Context) -> dict[str, Any]:
    """The fields of a message, if it is about clients that this node hosts.

    Raises:
        TrainingError: names a client that another node hosts.
    """
    config, hosted = config_of(message), _hosted(node, context)
    strangers = [client for client in config.get("clients", ()) if client not in hosted]
    if strangers:
        raise TrainingError(
            f"client {strangers[0]} is asked for, and this node hosts clients {hosted.start} to "
            f"{hosted.stop - 1}"
        )
    return config


def _parameters(message: Message) -> list[NDArray[Any]]:
    # Reading an array copies it out of the message: PyTorch may own what it holds.
    return [array.numpy() for array in message.content.array_records["parameters"].values()]


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

"""The ClientApp: unpack a message, let a `NumPyClient` compute, pack the reply.

An importable module on purpose: a ClientApp of `__main__` would be shipped by value with every
message.
"""

from typing import Any

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from fedrec_flower.aggregation import ROW_WEIGHT, pack
from fedrec_flower.client import masking
from fedrec_flower.client.cohort_client import CohortClient
from fedrec_flower.client.node import Node, open_node

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Say which clients this node hosts, `first` up to but without `stop`."""
    hosted = _hosted(_node(message), context)
    reply = ConfigRecord({"first": hosted.start, "stop": hosted.stop})
    return Message(RecordDict({"hosted": reply}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:  # noqa: ARG001  # Flower's signature
    """Train the clients that the message names; reply with sums, or with every update."""
    node, config = _node(message), _config(message)
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


@app.train(masking.ACTION)
def train_masked(message: Message, context: Context) -> Message:
    """Pass one stage of secure aggregation, one of which trains as `train` does."""
    node, config = _node(message), _config(message)
    request = dict(message.content.config_records["secure"])
    content = masking.serve(node, config, request, _parameters(message), context.state)
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the clients that the message names; keep a snapshot where it says so."""
    node, config = _node(message), _config(message)
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


def _node(message: Message) -> Node:
    # Recommenders are small: threads of one operation cost more than they bring, and every
    # worker has a core of its own.
    torch.set_num_threads(1)
    return open_node(_config(message)["job"])


def _config(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records["config"])


def _parameters(message: Message) -> list[NDArray[Any]]:
    # Reading an array copies it out of the message: PyTorch may own what it holds.
    return [array.numpy() for array in message.content.array_records["parameters"].values()]


def _hosted(node: Node, context: Context) -> range:
    place = context.node_config
    return node.data.hosted_by(int(place["partition-id"]), int(place["num-partitions"]))

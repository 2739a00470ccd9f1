"""The ClientApp of simulated nodes: their data and files lie where the simulation says.

An importable module on purpose: a ClientApp of `__main__` would be shipped by value with every
message.
"""

import json

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrec_flower.communication.schema import MASKED_ACTION, RequestHeader
from fedrec_flower.federation.client import handlers
from fedrec_flower.federation.client.node import Node, open_node

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """See `handlers.query`."""
    return handlers.query(_node(message), message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """See `handlers.train`."""
    return handlers.train(_node(message), message, context)


@app.train(MASKED_ACTION)
def train_masked(message: Message, context: Context) -> Message:
    """See `handlers.train_masked`."""
    return handlers.train_masked(_node(message), message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """See `handlers.evaluate`."""
    return handlers.evaluate(_node(message), message, context)


def _node(message: Message) -> Node:
    handlers.use_one_thread()
    header = RequestHeader.from_record(message.content)
    return open_node(json.dumps(json.loads(header.job) | json.loads(header.place)))

"""The ClientApp of simulated nodes: each message carries the paths of their data and files.

It is an importable module, because Flower would pickle a ClientApp of `__main__` into every
message.
"""

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrec_flower.communication.schema import MASKED_ACTION, RequestHeader
from fedrec_flower.federation.client import handlers
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.job import NodePlace

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with the hosted clients."""
    return handlers.query(_node(message), message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train clients."""
    return handlers.train(_node(message), message, context)


@app.train(MASKED_ACTION)
def train_masked(message: Message, context: Context) -> Message:
    """Handle one stage of secure aggregation."""
    return handlers.train_masked(_node(message), message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate clients."""
    return handlers.evaluate(_node(message), message, context)


def _node(message: Message) -> Node:
    handlers.use_one_thread()
    header = RequestHeader.from_record(message.content)
    return open_node(header.job, NodePlace.from_json(header.place))

"""The ClientApp of simulated nodes: their data and files lie where the simulation says.

An importable module on purpose: a ClientApp of `__main__` would be shipped by value with every
message.
"""

import json

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrec_flower.federation.client import handlers as serving
from fedrec_flower.federation.client import secure_client as masking
from fedrec_flower.federation.client.node import Node, open_node

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """See `serving.query`."""
    return serving.query(_node(message), message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """See `serving.train`."""
    return serving.train(_node(message), message, context)


@app.train(masking.ACTION)
def train_masked(message: Message, context: Context) -> Message:
    """See `serving.train_masked`."""
    return serving.train_masked(_node(message), message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """See `serving.evaluate`."""
    return serving.evaluate(_node(message), message, context)


def _node(message: Message) -> Node:
    serving.use_one_thread()
    config = serving.config_of(message)
    return open_node(json.dumps(json.loads(config["job"]) | json.loads(config["place"])))

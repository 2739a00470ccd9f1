"""Flower's strategies with `RecommenderClient`s give the same parameters as ours.

Flower's `FedAvg` and `FedAdam` run whole: their sampling, their messages, their arithmetic, over
one node per client. Ours run over one node that hosts all clients and replies with sums.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam, FedAvg
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from fedrec_flower.federation.client.cohort_client import RecommenderClient
from fedrec_flower.federation.client.node import Node
from fedrec_flower.federation.transport.flower_log import flower_logs_to
from fedrec_flower.federation.transport.in_process import InProcessGrid

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

SILOS = ("partition=silo_random", "partition.num_clients=5", "num_rounds=3")
FED_ADAM = {"eta": 0.05, "beta_1": 0.9, "beta_2": 0.99, "tau": 0.01}


def flowers(open_node: Callable[[], Node]) -> ClientApp:
    """Build a ClientApp as in Flower's tutorials: one client per node, plain averages."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        client = RecommenderClient(open_node(), int(context.node_config["partition-id"]))
        arrays = message.content.array_records["arrays"]
        given = [array.numpy().copy() for array in arrays.values()]
        round_ = message.content.config_records["config"]["server-round"]
        new, num_examples, metrics = client.fit(given, {"round": round_})
        named = dict(zip(arrays, map(Array, new), strict=True))
        content = RecordDict(
            {
                "arrays": ArrayRecord(named),
                "metrics": MetricRecord({"num-examples": num_examples, **metrics}),
            }
        )
        return Message(content, reply_to=message)

    return app


def by_flower(ran: "Federated", strategy: FedAvg, log: Path) -> dict[str, NDArray[np.float32]]:
    """Run the same federation with Flower's strategy and new clients."""

    def open_node() -> Node:
        return ran.open_node(store=ran.store / "again")

    initial = ran.setup.initial(ran.strategy)
    record = ArrayRecord({name: Array(value) for name, value in initial.items()})
    with flower_logs_to(log):
        grid = InProcessGrid(flowers(open_node), ran.setup.data.num_clients)
        result = strategy.start(grid, record, num_rounds=ran.setup.plan.num_rounds)
    assert result.arrays is not None
    return {name: array.numpy() for name, array in result.arrays.items()}


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_fedavg_over_all_clients_equals_flowers_fedavg(
    federate: "Federate", tmp_path: Path, model: str
) -> None:
    ran = federate(*SILOS, f"model={model}", "strategy.aggregation=all_clients")
    theirs = by_flower(ran, FedAvg(fraction_evaluate=0.0), tmp_path / "flower.log")
    initial = ran.setup.initial(ran.strategy)
    assert set(theirs) == set(ran.shared)
    for name, value in ran.shared.items():
        assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-5)
    moved = [np.abs(value - initial[name]).max() for name, value in ran.shared.items()]
    assert max(moved) > 1e-2


@pytest.mark.parametrize("model", ["mf", "ncf"])
def test_fedadam_over_all_clients_equals_flowers_fedadam(
    federate: "Federate", tmp_path: Path, model: str
) -> None:
    ran = federate(
        *SILOS,
        f"model={model}",
        "strategy=fedadam",
        "strategy.aggregation=all_clients",
        f"strategy.server_learning_rate={FED_ADAM['eta']}",
        f"strategy.tau={FED_ADAM['tau']}",
    )
    strategy = FedAdam(fraction_evaluate=0.0, **FED_ADAM)  # type: ignore[arg-type]  # all are rates
    theirs = by_flower(ran, strategy, tmp_path / "flower.log")
    for name, value in ran.shared.items():
        assert_allclose(value, theirs[name], rtol=1e-4, atol=1e-4)

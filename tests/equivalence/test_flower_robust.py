"""Our robust rules equal Flower's robust strategies on the same updates."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Bulyan, FedAvg, FedMedian, FedTrimmedAvg, Krum, MultiKrum
from numpy.testing import assert_allclose

from fedrec_flower.core.updates import Updates
from fedrec_flower.federation.transport.flower_log import flower_logs_to
from fedrec_flower.federation.transport.in_process import InProcessGrid
from fedrec_flower.strategies.aggregators.krum import bulyan, krum, multi_krum
from fedrec_flower.strategies.aggregators.robust import median, trimmed_mean

NUM_CLIENTS, NUM_MALICIOUS, NUM_ITEMS = (
    15,
    3,
    7,
)  # 4 * 3 + 3 clients: as few as Flower's Bulyan takes
SHARE = NUM_MALICIOUS / NUM_CLIENTS
SHAPES = {"table": (NUM_ITEMS, 4), "dense": (5,)}
# Flower's strategy, and our rule with its setting bound.
PAIRS: dict[str, tuple[FedAvg, Any]] = {
    "median": (FedMedian(), median),
    "trimmed_mean": (FedTrimmedAvg(beta=0.2), partial(trimmed_mean, trim=0.2)),
    "krum": (Krum(num_malicious_nodes=NUM_MALICIOUS), partial(krum, malicious_share=SHARE)),
    "multi_krum": (
        MultiKrum(
            num_malicious_nodes=NUM_MALICIOUS, num_nodes_to_select=NUM_CLIENTS - NUM_MALICIOUS
        ),
        partial(multi_krum, malicious_share=SHARE),
    ),
    "bulyan": (
        Bulyan(num_malicious_nodes=NUM_MALICIOUS),
        partial(bulyan, malicious_share=SHARE, selection="once"),
    ),
}


def cohort(weights: Any) -> Updates:
    """Clients that touched all items; some of them are malicious."""
    rng = np.random.default_rng(5)
    tensors = {name: rng.normal(size=(NUM_CLIENTS, *shape)) for name, shape in SHAPES.items()}
    for value in tensors.values():
        value[:NUM_MALICIOUS] *= 20.0
    flat = {name: value.astype(np.float32) for name, value in tensors.items()}
    flat["table"] = flat["table"].reshape(-1, 4)
    rows = np.tile(np.arange(NUM_ITEMS), NUM_CLIENTS)
    offsets = np.arange(NUM_CLIENTS + 1) * NUM_ITEMS
    return Updates(np.arange(NUM_CLIENTS), np.asarray(weights, np.float64), offsets, rows, flat)


def by_flower(strategy: FedAvg, updates: Updates) -> ArrayRecord:
    """Aggregate the updates, sent as parameters, with Flower's strategy."""
    grid, replies = InProcessGrid(ClientApp(), num_nodes=1), []
    for place, weight in enumerate(updates.weights.tolist()):
        one = updates.select(np.array([place]), ["table"]).tensors
        arrays = {"table": Array(one["table"]), "dense": Array(one["dense"][0])}
        metrics = MetricRecord({"num-examples": weight})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        replies.append(grid.create_message(content, "train", 1, "1"))
    found, _ = strategy.aggregate_train(1, replies)
    assert found is not None
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_rule_equals_flowers_strategy(tmp_path: Path, name: str) -> None:
    strategy, rule = PAIRS[name]
    # Flower weights the clients that Krum and Multi-Krum select, as we do, but no trimmed mean.
    weighted = name in {"krum", "multi_krum"}
    updates = cohort(np.arange(1, NUM_CLIENTS + 1) if weighted else np.ones(NUM_CLIENTS))
    with flower_logs_to(tmp_path / "flower.log"):
        theirs = by_flower(strategy, updates)
    for tensor, value in rule(updates, SHAPES, ("table",), "all_clients").items():
        assert_allclose(value, theirs[tensor].numpy(), rtol=1e-6, atol=1e-6)

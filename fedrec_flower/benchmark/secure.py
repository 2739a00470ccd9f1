"""Table of secure aggregation: protocol cost for nodes and server with a table of 1,682 x 64.

Measures the complete protocol without messages, in one thread: keys, shares, quantization, masks,
dropouts after the shares are sent (the most expensive moment, as their masking keys must be
reconstructed), and the unmasked sum. Training and the download of parameters are not included,
because secure aggregation does not change them.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.benchmark.measuring import in_new_process, peak_memory_mb
from fedrec_flower.communication.secure_aggregation.client import Member
from fedrec_flower.communication.secure_aggregation.messages import Contribution, PublicKeys
from fedrec_flower.communication.secure_aggregation.quantization import CohortSum
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.communication.secure_aggregation.server import Coordinator
from fedrec_flower.core.random import generator
from fedrec_flower.core.updates import UpdateSum

SETTINGS = ((100, 20, 0.0), (100, 20, 0.1), (100, None, 0.0), (100, None, 0.1))
_NUM_ITEMS = 1682  # as in ML-100K
_EMBEDDING_DIM = 64
_NODE_WEIGHT = 100  # interactions per node
_INDEX_BYTES = 8  # the index of a member in a message

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Meter:
    """Cost of one session.

    Attributes:
        seconds: CPU, by side.
        up: int64 (num_nodes,), bytes from each node.
        down: int64 (num_nodes,), bytes to each node.
    """

    seconds: dict[str, float]
    up: NDArray[np.int64]
    down: NDArray[np.int64]

    def time(self, side: str, work: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function and add its CPU time to one side."""
        start = process_time()
        result = work(*arguments)
        self.seconds[side] += process_time() - start
        return result


def measure(
    num_nodes: int, num_neighbours: int | None, dropout: float, shape: Sequence[int]
) -> dict[str, Any]:
    """Run one session in this process.

    Args:
        num_nodes: number of members.
        num_neighbours: number of neighbours of each member; None for all other members.
        dropout: fraction of the members that send shares and then drop out.
        shape: shape of the table.

    Returns:
        nodes, neighbours, dropouts, node_cpu_seconds (of one node, on average),
        server_cpu_seconds, bytes_up and bytes_down (of one surviving node, on average),
        bytes_up_plain (the table and its row weights, not masked), ratio (of the bytes up),
        largest_error_millionths (of the weighted sum), peak_memory_mb.

    Raises:
        TooFewError: if too few members survive.
    """
    settings = SecAgg(
        num_neighbours=num_neighbours,
        threshold=0.6,
        min_nodes=3,
        min_clients=3,
        weights="powers",
        clip_range=1.0,
        value_bits=None,
        modulus_bits=32,
        rounding="stochastic",
        client_weight=float(_NODE_WEIGHT),
    )
    zeros = np.zeros(num_nodes, np.int64)
    meter = _Meter({"node": 0.0, "server": 0.0}, up=zeros, down=zeros.copy())
    coordinator = settings.coordinator(num_nodes)
    dropped = set(range(round(num_nodes * dropout)))
    updates = [_node_update(place, shape) for place in range(num_nodes)]
    total = _session(settings, coordinator, updates, dropped, meter)
    survivors = sorted(coordinator.masked)
    decoded = settings.dequantize_sum(total, num_nodes, {"table": tuple(shape)}, shape[0]).total
    expected = sum(updates[place].total.tensors["table"] for place in survivors)
    plain_bytes = 4 * shape[0] * shape[1] + 8 * shape[0]
    return {
        "nodes": num_nodes,
        "neighbours": len(coordinator.neighbours[0]),
        "dropouts": len(dropped),
        "node_cpu_seconds": meter.seconds["node"] / num_nodes,
        "server_cpu_seconds": meter.seconds["server"],
        "bytes_up": round(meter.up[survivors].mean()),
        "bytes_down": round(meter.down[survivors].mean()),
        "bytes_up_plain": plain_bytes,
        "ratio": meter.up[survivors].mean() / plain_bytes,
        "largest_error_millionths": 1e6 * float(np.abs(decoded.tensors["table"] - expected).max()),
        "peak_memory_mb": peak_memory_mb(),
    }


def _session(
    settings: SecAgg,
    coordinator: Coordinator,
    updates: Sequence[CohortSum],
    dropped: Collection[int],
    meter: _Meter,
) -> Any:
    """Run the four exchanges of the protocol; returns the sum as integers."""
    places = range(len(updates))
    threshold = coordinator.threshold
    rules = settings.rules
    members = [meter.time("node", Member.create, place, threshold, rules) for place in places]
    public = {place: members[place].public for place in places}
    meter.up[:] += [_num_bytes(public[place]) for place in places]
    sent = {}
    contributions: dict[int, Contribution] = {}
    revealed = {}
    for place, keys in meter.time("server", coordinator.collect_keys, public).items():
        sent[place] = meter.time("node", members[place].share, keys)
        meter.down[place] += sum(_INDEX_BYTES + _num_bytes(pair) for pair in keys.values())
        meter.up[place] += sum(_INDEX_BYTES + len(text) for text in sent[place].values())
    for place, box in meter.time("server", coordinator.collect_shares, sent).items():
        meter.down[place] += sum(_INDEX_BYTES + len(text) for text in box.values())
        if place not in dropped:
            rng = generator(1, "benchmark-rounding", 0, place)
            meter.time("node", members[place].open, box)
            vector = meter.time("node", settings.quantize_sum, updates[place], 1, len(updates), rng)
            contribution = meter.time("node", members[place].mask, vector, 1)
            contributions[place] = contribution
            tags = sum(_INDEX_BYTES + len(tag) for tag in contribution.tags.values())
            meter.up[place] += contribution.vector.nbytes + _INDEX_BYTES + tags
    for place, wanted in meter.time(
        "server", coordinator.add_vectors, contributions.items()
    ).items():
        revealed[place] = meter.time("node", members[place].unmask, wanted)
        meter.down[place] += _INDEX_BYTES * len(wanted.survivors | wanted.dropouts)
        meter.down[place] += sum(_INDEX_BYTES + len(tag) for tag in wanted.tags.values())
        shares = [*revealed[place].seeds.values(), *revealed[place].keys.values()]
        meter.up[place] += sum(_INDEX_BYTES + len(share) for share in shares)
    return meter.time("server", coordinator.unmask, revealed)


def secure_table() -> pd.DataFrame:
    """Measure every setting in a separate process; returns one row of `measure` each."""
    shape = (_NUM_ITEMS, _EMBEDDING_DIM)
    return pd.DataFrame([in_new_process(measure, *setting, shape) for setting in SETTINGS])


def _node_update(place: int, shape: Sequence[int]) -> CohortSum:
    """Weighted update of a node with one client that touched a few rows."""
    rng = generator(1, "benchmark-update", 0, place)
    rows = rng.choice(shape[0], min(shape[0], 5 * _NODE_WEIGHT), replace=False)
    table = np.zeros(tuple(shape))
    table[rows] = rng.normal(0, 0.01, (len(rows), shape[1])) * _NODE_WEIGHT
    touched = np.zeros(shape[0])
    touched[rows] = _NODE_WEIGHT
    update = UpdateSum({"table": table}, float(_NODE_WEIGHT), touched)
    return CohortSum(update, 0.7 * _NODE_WEIGHT, 1, 0)


def _num_bytes(pair: PublicKeys) -> int:
    return len(pair.encryption) + len(pair.masking)

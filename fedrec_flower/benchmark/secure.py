"""The table of secure aggregation: what hiding a table of 1,682 x 64 costs nodes and server.

The whole protocol without messages, one thread: keys, shares, integers, masks, dropouts after the
shares are out (the dearest moment: their masking keys must be put together), the sum in clear.
Training and the parameters on their way down are what they are without it, and not counted.
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
_ITEMS, _DIMENSIONS, _WEIGHT = 1682, 64, 100  # a table as of ML-100K; interactions a node
_PLACE = 8  # bytes that name a member

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Meter:
    """What a session costs.

    Attributes:
        seconds: CPU, by side.
        up: int64 (num_nodes,), bytes from each node.
        down: int64 (num_nodes,), bytes to each node.
    """

    seconds: dict[str, float]
    up: NDArray[np.int64]
    down: NDArray[np.int64]

    def time(self, side: str, work: Callable[..., Result], *arguments: Any) -> Result:
        """Do a piece of work of one side."""
        began = process_time()
        result = work(*arguments)
        self.seconds[side] += process_time() - began
        return result


def measure(
    num_nodes: int, num_neighbours: int | None, dropout: float, shape: Sequence[int]
) -> dict[str, Any]:
    """One session in this process.

    Args:
        num_nodes: members.
        num_neighbours: of each; None for all the others.
        dropout: share of the members that share and then fall silent.
        shape: of the table.

    Returns:
        nodes, neighbours, dropouts, node_cpu_seconds (of one node, on average),
        server_cpu_seconds, bytes_up and bytes_down (of one node that stays, on average),
        bytes_up_plain (the table and its row weights, in clear), ratio (of the bytes up),
        largest_error_millionths (of the weighted sum), peak_memory_mb.

    Raises:
        TooFewError: if too few members are left.
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
        client_weight=float(_WEIGHT),
    )
    nobody = np.zeros(num_nodes, np.int64)
    meter = _Meter({"node": 0.0, "server": 0.0}, nobody, nobody.copy())
    coordinator = settings.coordinator(num_nodes)
    silent = set(range(round(num_nodes * dropout)))
    said = [_said(place, shape) for place in range(num_nodes)]
    total = _session(settings, coordinator, said, silent, meter)
    stayed = sorted(coordinator.masked)
    found = settings.decoded(total, num_nodes, {"table": tuple(shape)}, shape[0]).total
    plain = sum(said[place].total.tensors["table"] for place in stayed)
    in_clear = 4 * shape[0] * shape[1] + 8 * shape[0]
    return {
        "nodes": num_nodes,
        "neighbours": len(coordinator.neighbours[0]),
        "dropouts": len(silent),
        "node_cpu_seconds": meter.seconds["node"] / num_nodes,
        "server_cpu_seconds": meter.seconds["server"],
        "bytes_up": round(meter.up[stayed].mean()),
        "bytes_down": round(meter.down[stayed].mean()),
        "bytes_up_plain": in_clear,
        "ratio": meter.up[stayed].mean() / in_clear,
        "largest_error_millionths": 1e6 * float(np.abs(found.tensors["table"] - plain).max()),
        "peak_memory_mb": peak_memory_mb(),
    }


def _session(
    settings: SecAgg,
    coordinator: Coordinator,
    said: Sequence[CohortSum],
    silent: Collection[int],
    meter: _Meter,
) -> Any:
    """All four exchanges; the sum as integers."""
    everyone, threshold = range(len(said)), coordinator.threshold
    rules = settings.rules
    members = [meter.time("node", Member.fresh, place, threshold, rules) for place in everyone]
    public = {place: members[place].public for place in everyone}
    meter.up[:] += [_num_bytes(public[place]) for place in everyone]
    sent, parts, told = {}, dict[int, Contribution](), {}
    for place, keys in meter.time("server", coordinator.advertised, public).items():
        sent[place] = meter.time("node", members[place].share, keys)
        meter.down[place] += sum(_PLACE + _num_bytes(pair) for pair in keys.values())
        meter.up[place] += sum(_PLACE + len(text) for text in sent[place].values())
    for place, box in meter.time("server", coordinator.shared, sent).items():
        meter.down[place] += sum(_PLACE + len(text) for text in box.values())
        if place not in silent:
            rng = generator(1, "benchmark-rounding", 0, place)
            meter.time("node", members[place].open, box)
            vector = meter.time("node", settings.encoded, said[place], 1, len(said), rng)
            part = parts[place] = meter.time("node", members[place].mask, vector, 1)
            tags = sum(_PLACE + len(tag) for tag in part.tags.values())
            meter.up[place] += part.vector.nbytes + _PLACE + tags
    for place, wanted in meter.time("server", coordinator.add, parts.items()).items():
        told[place] = meter.time("node", members[place].unmask, wanted)
        meter.down[place] += _PLACE * len(wanted.survivors | wanted.dropouts)
        meter.down[place] += sum(_PLACE + len(tag) for tag in wanted.tags.values())
        shares = [*told[place].seeds.values(), *told[place].keys.values()]
        meter.up[place] += sum(_PLACE + len(share) for share in shares)
    return meter.time("server", coordinator.unmask, told)


def secure_table() -> pd.DataFrame:
    """Measure every setting, each in a process of its own: a row of `measure` for each."""
    shape = (_ITEMS, _DIMENSIONS)
    return pd.DataFrame([in_new_process(measure, *setting, shape) for setting in SETTINGS])


def _said(place: int, shape: Sequence[int]) -> CohortSum:
    """What a node with one client says: a weighted update of a few touched rows."""
    rng = generator(1, "benchmark-update", 0, place)
    rows, table = (
        rng.choice(shape[0], min(shape[0], 5 * _WEIGHT), replace=False),
        np.zeros(tuple(shape)),
    )
    table[rows] = rng.normal(0, 0.01, (len(rows), shape[1])) * _WEIGHT
    touched = np.zeros(shape[0])
    touched[rows] = _WEIGHT
    return CohortSum(UpdateSum({"table": table}, float(_WEIGHT), touched), 0.7 * _WEIGHT, 1, 0)


def _num_bytes(pair: PublicKeys) -> int:
    return len(pair.encryption) + len(pair.masking)

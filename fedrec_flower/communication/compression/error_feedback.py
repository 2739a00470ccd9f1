"""Error feedback: what a message lost is owed, and added to the client's next update.

Source: Karimireddy et al. 2019, Algorithm 1.
"""

from dataclasses import replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.compression.base import Compression, RngFor
from fedrec_flower.core.updates import Updates


class Kept(Protocol):
    """Where a node keeps what its clients owe: for each of them an array per parameter."""

    def read(self, name: str, updates: Updates) -> NDArray[np.float32]:
        """What the clients owe, as a new array laid out like `updates.tensors[name]`.

        Of a table the rows that they touch now. Zeros for whoever never owed anything.
        """
        ...

    def write(self, name: str, updates: Updates, array: NDArray[np.float32]) -> None:
        """Keep what the clients owe from now on, laid out alike; other rows stay as they are."""
        ...


def compress_with_feedback(
    compression: Compression,
    updates: Updates,
    tables: frozenset[str],
    rng_for: RngFor,
    kept: Kept,
) -> tuple[Updates, NDArray[np.int64]]:
    """`Compression.compress`, with what the clients owe if the compression remembers.

    A client sends as much of its update and its debt as the compression lets through, and owes the
    rest: what it sent in all and what it owes sum to its updates in all. Only touched rows are
    sent, so a debt in other rows waits until they are touched again.

    Args:
        compression: the step.
        updates: of several clients, each of them once; left unchanged.
        tables: names of the parameters with a row per item.
        rng_for: gives a client's generator.
        kept: what they owe; changed.
    """
    if not compression.remembers:
        return compression.compress(updates, tables, rng_for)
    owed = {name: kept.read(name, updates) for name in updates.tensors}
    for name, array in updates.tensors.items():
        owed[name] += array
    sent, num_bytes = compression.compress(replace(updates, tensors=owed), tables, rng_for)
    for name, array in sent.tensors.items():
        kept.write(name, updates, _rest(owed[name], array))
    return sent, num_bytes


def _rest(owed: NDArray[np.float32], sent: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is left to be sent, in the place of what was owed."""
    with np.errstate(invalid="ignore"):
        owed -= sent
    # A number that is not finite is for the server to refuse now, not to be owed for ever.
    owed[~np.isfinite(owed)] = 0
    return owed

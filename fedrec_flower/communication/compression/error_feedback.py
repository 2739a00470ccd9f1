"""Error feedback: the compression error is stored and added to the client's next update.

Source: Karimireddy et al. 2019, Algorithm 1.
"""

from dataclasses import replace
from typing import Protocol

import numpy as np

from fedrec_flower.communication.compression.base import Compression, RngFor
from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.core.updates import Updates


class ResidualStore(Protocol):
    """Stores the residual (the accumulated compression error) of each client and parameter."""

    def read(self, name: str, updates: Updates) -> Float32Array:
        """Return the clients' residuals as a new array in the layout of `updates.tensors[name]`.

        A table's residual is read at the rows that are touched now. It is zero for a client
        without a stored residual.
        """
        ...

    def write(self, name: str, updates: Updates, array: Float32Array) -> None:
        """Store the clients' residuals, in the same layout; untouched rows are not changed."""
        ...


def compress_with_feedback(
    compression: Compression,
    updates: Updates,
    tables: frozenset[str],
    rng_for: RngFor,
    residuals: ResidualStore,
) -> tuple[Updates, IndexArray]:
    """Call `Compression.compress`, with error feedback if the compression uses it.

    A client compresses the sum of its update and its residual, and stores the error as its new
    residual. Over all rounds, the sent values plus the residual sum to the client's updates. Only
    touched rows are sent, so the residual of another row waits until the row is touched again.

    Args:
        compression: the compression.
        updates: updates of several clients, one per client; not modified.
        tables: names of the parameters with a row per item.
        rng_for: returns a client's generator.
        residuals: the clients' residuals; modified.

    Returns:
        The result of `Compression.compress`.
    """
    if not compression.uses_error_feedback:
        return compression.compress(updates, tables, rng_for)
    corrected = {name: residuals.read(name, updates) for name in updates.tensors}
    for name, array in updates.tensors.items():
        corrected[name] += array
    sent, num_bytes = compression.compress(replace(updates, tensors=corrected), tables, rng_for)
    for name, array in sent.tensors.items():
        residuals.write(name, updates, _subtract_sent(corrected[name], array))
    return sent, num_bytes


def _subtract_sent(corrected: Float32Array, sent: Float32Array) -> Float32Array:
    """Return the new residual; overwrites `corrected`."""
    with np.errstate(invalid="ignore"):
        corrected -= sent
    # A value that is not finite is rejected by the server in this round. It must not stay in the
    # residual for all later rounds.
    corrected[~np.isfinite(corrected)] = 0
    return corrected

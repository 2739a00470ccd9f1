"""How one parameter of several clients lies in memory: a matrix a client, one below the other."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each client's matrix lies.

    Attributes:
        offsets: int64 (num_clients + 1,), where each client's rows begin.
        width: entries of a row.
    """

    offsets: NDArray[np.int64]
    width: int

    @classmethod
    def of_table(cls, row: tuple[int, ...], offsets: NDArray[np.int64]) -> Self:
        """A parameter with a row per item; `row` is the shape of one, `offsets` the updates'."""
        return cls(offsets, prod(row))

    @classmethod
    def of_dense(cls, shape: tuple[int, ...], num_clients: int) -> Self:
        """Any other parameter; one without two axes is a single row."""
        num_rows = shape[0] if len(shape) > 1 else 1
        return cls(np.arange(num_clients + 1) * num_rows, prod(shape) // max(num_rows, 1))

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def num_rows(self) -> NDArray[np.int64]:
        """int64 (num_clients,), rows of each client."""
        return np.diff(self.offsets)

    @property
    def entries(self) -> NDArray[np.int64]:
        """int64 (num_clients + 1,), where each client's entries begin."""
        return self.offsets * self.width


def layouts(
    rests: Mapping[str, tuple[int, ...]], tables: frozenset[str], offsets: NDArray[np.int64]
) -> dict[str, Layout]:
    """The layout of each parameter.

    Args:
        rests: by name, the shape of a row of a table, and the whole shape of anything else.
        tables: names of the parameters with a row per item.
        offsets: int64 (num_clients + 1,), `Updates.offsets`.
    """
    return {
        name: Layout.of_table(rest, offsets)
        if name in tables
        else Layout.of_dense(rest, len(offsets) - 1)
        for name, rest in rests.items()
    }

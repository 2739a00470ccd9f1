"""No reply may spoil the model: what is wrong with an update, before it is averaged."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Tensors, Updates

DIVERGED = "not_finite: the loss; lower training.learning_rate or training.dense_learning_rate"
"""Why nothing comes from a client whose training went beyond all numbers."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What no honest update exceeds.

    Attributes:
        weight: the largest weight: interactions of the largest client.
        value: the largest magnitude of a single value, in units of the parameters.
    """

    weight: float
    value: float

    def fault(
        self, tensors: Tensors, weight: float, shapes: Mapping[str, tuple[int, ...]]
    ) -> str | None:
        """What is wrong with one client's update, as "kind: detail"; None if nothing is.

        Args:
            tensors: what came, by name.
            weight: the weight that it claims.
            shapes: what should have come.
        """
        if tensors.keys() != shapes.keys():
            return f"wrong_names: {sorted(tensors)} instead of {sorted(shapes)}"
        for name, value in tensors.items():
            if value.shape != shapes[name]:
                return f"wrong_shape: {name} has {value.shape} instead of {shapes[name]}"
        if not 0 <= weight <= self.weight:
            return f"wrong_weight: {weight:g} is not between 0 and {self.weight:g}"
        if weight == 0 and any(value.any() for value in tensors.values()):
            return "wrong_weight: 0, but it learnt something"
        return next((r for n, v in tensors.items() if (r := self._wrong_value(n, v))), None)

    def faults(self, updates: Updates, tables: Collection[str]) -> dict[int, str]:
        """What is wrong with which of several clients' updates, by client code.

        Args:
            updates: the updates, of right shapes by their layout.
            tables: names of the parameters with a row per item.
        """
        weights = updates.weights
        suspects = ~((weights > 0) & (weights <= self.weight))
        for name, values in updates.tensors.items():
            if not self._surely_fine(values):
                suspects |= self._owners_of_wrong(updates, values, table=name in tables)
        found = {
            int(updates.clients[place]): self._fault_of(updates, int(place), tables)
            for place in np.flatnonzero(suspects)
        }
        return {client: reason for client, reason in found.items() if reason}

    def _surely_fine(self, values: NDArray[np.float32]) -> bool:
        # One pass at the speed of memory: a value beyond the limit makes the sum of squares exceed
        # the limit's square, and so does what is not a number.
        flat = values.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is an answer, too
            return bool(np.dot(flat, flat) < self.value**2)

    def _owners_of_wrong(
        self, updates: Updates, values: NDArray[np.float32], *, table: bool
    ) -> NDArray[np.bool_]:
        largest = np.abs(values).reshape(len(values), -1).max(axis=1, initial=0.0)
        # What is not a number is never smaller.
        wrong: NDArray[np.bool_] = np.logical_not(largest <= self.value)
        if not table:
            return wrong
        owners = np.unique(updates.owners[wrong])
        found: NDArray[np.bool_] = np.isin(np.arange(len(updates.clients)), owners)
        return found

    def _fault_of(self, updates: Updates, place: int, tables: Collection[str]) -> str | None:
        one = updates.select(np.array([place]), tables).tensors
        shapes = {name: value.shape for name, value in one.items()}
        return self.fault(one, float(updates.weights[place]), shapes)

    def _wrong_value(self, name: str, value: NDArray[np.float32]) -> str | None:
        if not np.isfinite(value).all():
            return f"not_finite: {name}"
        if (np.abs(value) > self.value).any():
            return f"huge: {name} has values beyond {self.value:g}"
        return None

"""Limits of client updates: no single reply may ruin the model."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.types import BoolArray, Float32Array, Shapes, Tensors
from fedrec_flower.core.updates import Updates

DIVERGENCE_FIX = "lower training.learning_rate or training.dense_learning_rate"
DIVERGED = Failure(FailureKind.NOT_FINITE, f"the loss; {DIVERGENCE_FIX}")
"""Failure of a client whose training loss is not finite."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits that no honest update exceeds.

    Attributes:
        weight: largest weight: number of interactions of the largest client.
        value: largest magnitude of a single value, in units of the parameters.
    """

    weight: float
    value: float

    def violation(self, tensors: Tensors, weight: float, shapes: Shapes) -> Failure | None:
        """Check one client's update.

        Args:
            tensors: the received tensors by name.
            weight: the weight that the client claims.
            shapes: the expected shapes by name.

        Returns:
            The first violation, or None.
        """
        if tensors.keys() != shapes.keys():
            detail = f"{sorted(tensors)} instead of {sorted(shapes)}"
            return Failure(FailureKind.WRONG_NAMES, detail)
        for name, value in tensors.items():
            if value.shape != shapes[name]:
                detail = f"{name} has {value.shape} instead of {shapes[name]}"
                return Failure(FailureKind.WRONG_SHAPE, detail)
        if not 0 <= weight <= self.weight:
            detail = f"{weight:g} is not between 0 and {self.weight:g}"
            return Failure(FailureKind.WRONG_WEIGHT, detail)
        if weight == 0 and any(value.any() for value in tensors.values()):
            return Failure(FailureKind.WRONG_WEIGHT, "0, but the update is not zero")
        for name, value in tensors.items():
            if failure := self._value_violation(name, value):
                return failure
        return None

    def violations(self, updates: Updates, tables: Collection[str]) -> dict[int, Failure]:
        """Check the updates of several clients.

        Args:
            updates: the updates; their layout guarantees correct shapes.
            tables: names of the parameters with a row per item.

        Returns:
            The first violation of each client that has one, by client code.
        """
        weights = updates.weights
        suspects = ~((weights > 0) & (weights <= self.weight))
        for name, values in updates.tensors.items():
            if not self._is_surely_valid(values):
                suspects |= self._owners_of_invalid(updates, values, table=name in tables)
        failures = {}
        for place in np.flatnonzero(suspects):
            if failure := self._client_violation(updates, int(place), tables):
                failures[int(updates.clients[place])] = failure
        return failures

    def _is_surely_valid(self, values: Float32Array) -> bool:
        # One pass at memory speed. If a value exceeds the limit, the sum of squares exceeds the
        # squared limit; NaN and infinity fail the comparison too.
        flat = values.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity is a valid result here
            return bool(np.dot(flat, flat) < self.value**2)

    def _owners_of_invalid(
        self, updates: Updates, values: Float32Array, *, table: bool
    ) -> BoolArray:
        """Whether each client has an invalid value in a tensor, bool (num_clients,)."""
        largest = np.abs(values).reshape(len(values), -1).max(axis=1, initial=0.0)
        # Negated, because a comparison with NaN is false.
        invalid: BoolArray = np.logical_not(largest <= self.value)
        if not table:
            return invalid
        owners = np.unique(updates.owners[invalid])
        is_owner: BoolArray = np.isin(np.arange(len(updates.clients)), owners)
        return is_owner

    def _client_violation(
        self, updates: Updates, place: int, tables: Collection[str]
    ) -> Failure | None:
        tensors = updates.select(np.array([place]), tables).tensors
        shapes = {name: value.shape for name, value in tensors.items()}
        return self.violation(tensors, float(updates.weights[place]), shapes)

    def _value_violation(self, name: str, value: Float32Array) -> Failure | None:
        if not np.isfinite(value).all():
            return Failure(FailureKind.NOT_FINITE, name)
        if (np.abs(value) > self.value).any():
            return Failure(FailureKind.HUGE, f"{name} has values beyond {self.value:g}")
        return None

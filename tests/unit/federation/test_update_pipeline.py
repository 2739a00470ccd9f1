"""Laws of the update pipeline: data pass the steps outside in, updates and sums inside out."""

from dataclasses import dataclass, replace
from math import inf

import numpy as np
import pytest
from typing_extensions import override

from fedrec_flower.communication.limits import Limits
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import IndexArray
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.federation.client.update_pipeline import (
    TrainContext,
    UpdateBatch,
    UpdatePipeline,
    UpdateStep,
)
from fedrec_flower.privacy.mechanism import NoPrivacy, PrivacyMechanism
from tests.unit.communication.test_limits import GIVEN, NUM_ITEMS, SHAPES, TABLES, trained

CONTEXT = TrainContext(1, 0, np.inf, GIVEN)


@dataclass(frozen=True)
class Recorder(UpdateStep):
    """Records the calls of its hooks."""

    name: str
    calls: list[tuple[str, str]]

    @override
    def on_data(self, data: ClientData, context: TrainContext) -> ClientData:
        self.calls.append(("data", self.name))
        return data

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        self.calls.append(("updates", self.name))

    @override
    def on_sum(self, total: UpdateSum, clients: IndexArray, context: TrainContext) -> None:
        self.calls.append(("sum", self.name))


class Guarantee(NoPrivacy):
    """A mechanism that claims a guarantee."""

    @property
    @override
    def has_guarantee(self) -> bool:
        return True


def pipeline(*steps: UpdateStep, mechanism: PrivacyMechanism | None = None) -> UpdatePipeline:
    return UpdatePipeline(
        steps=steps,
        mechanism=NoPrivacy() if mechanism is None else mechanism,
        tables=TABLES,
        names=sorted(SHAPES),
        sends_individual_updates=False,
        limits=Limits(inf, inf),
    )


def updates_of(*clients: int) -> Updates:
    """Updates of 1 everywhere; every client touches the items 0 and 1."""
    count = len(clients)
    return Updates(
        np.array(clients),
        np.full(count, 2.0),
        np.arange(0, 2 * count + 1, 2),
        np.tile([0, 1], count),
        {
            "item": np.ones((2 * count, SHAPES["item"][1]), np.float32),
            "bias": np.ones((2 * count, 1), np.float32),
            "dense": np.ones((count, 2, 2), np.float32),
        },
    )


def test_pipeline_calls_data_hooks_in_reverse_and_the_others_in_order() -> None:
    calls: list[tuple[str, str]] = []
    one = pipeline(Recorder("first", calls), Recorder("last", calls))
    data: ClientData = object()  # type: ignore[assignment]  # no step looks at it
    assert one.training_data(data, CONTEXT) is data
    one.add(trained(updates_of(3, 5)), one.empty_result(GIVEN, NUM_ITEMS), CONTEXT)
    hooks = [("data", "last"), ("data", "first"), ("updates", "first"), ("updates", "last")]
    assert calls == [*hooks, ("sum", "first"), ("sum", "last")]


def test_pipeline_without_steps_sums_the_weighted_updates() -> None:
    one = pipeline()
    result = one.empty_result(GIVEN, NUM_ITEMS)
    one.add(trained(updates_of(3, 5)), result, CONTEXT)
    assert result.total is not None
    assert result.weight == 2.0 + 2.0
    assert result.total.tensors["dense"].tolist() == [[4.0, 4.0], [4.0, 4.0]]
    assert (result.replied, result.failures, result.bytes_up) == (2, {}, 0)


def test_pipeline_with_a_guarantee_sends_no_loss() -> None:
    losses = []
    for mechanism in (NoPrivacy(), Guarantee()):
        one = pipeline(mechanism=mechanism)
        result = one.empty_result(GIVEN, NUM_ITEMS)
        one.add(trained(updates_of(3)), result, CONTEXT)
        losses.append(result.loss)
    assert losses[0] != 0
    assert losses[1] == 0


def test_pipeline_with_a_guarantee_rejects_individual_updates() -> None:
    one = replace(pipeline(mechanism=Guarantee()), sends_individual_updates=True)
    with pytest.raises(ConfigError, match="privacy protects their sum"):
        one.empty_result(GIVEN, NUM_ITEMS)

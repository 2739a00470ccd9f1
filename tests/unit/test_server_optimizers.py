"""Server optimisers by hand, and FedAdam against Flower's."""

from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdam as FlowerFedAdam
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.aggregation import AdamState, adam, average
from fedrec_flower.federation import InProcessGrid
from fedrec_flower.federation.logs import flower_logs_to

BETA1, BETA2, TAU = 0.9, 0.99, 1e-3


def drawn(seed: int) -> dict[str, np.typing.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = {"table": (5, 3), "dense": (4,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_average_with_rate_one_adds_the_update() -> None:
    parameters, update = drawn(0), drawn(1)
    moved = average(parameters, update, 1.0)
    for name, value in parameters.items():
        assert_array_equal(moved[name], value + update[name])


def test_average_scales_the_update_by_its_rate() -> None:
    one = {"dense": np.array([1.0, 2.0], np.float32)}
    moved = average(one, {"dense": np.array([4.0, -8.0], np.float32)}, 0.25)
    assert moved["dense"].tolist() == [1.0 + 0.25 * 4, 2.0 - 0.25 * 8]


def test_a_zero_rate_leaves_the_parameters() -> None:
    parameters, update = drawn(0), drawn(1)
    by_adam = adam(
        parameters, update, AdamState(), learning_rate=0.0, beta1=BETA1, beta2=BETA2, tau=TAU
    )
    for moved in (average(parameters, update, 0.0), by_adam):
        for name, value in parameters.items():
            assert_array_equal(moved[name], value)


def test_no_optimiser_changes_its_arguments_or_their_type() -> None:
    parameters, update = drawn(0), drawn(1)
    state = AdamState()
    for moved in (
        average(parameters, update, 0.5),
        adam(parameters, update, state, learning_rate=0.5, beta1=BETA1, beta2=BETA2, tau=TAU),
    ):
        assert {array.dtype for array in moved.values()} == {np.dtype(np.float32)}
    for name in parameters:
        assert_array_equal(parameters[name], drawn(0)[name])
        assert_array_equal(update[name], drawn(1)[name])


def test_adam_by_hand_over_two_steps() -> None:
    state, position = AdamState(), {"x": np.array([1.0], np.float32)}
    first = second = 0.0
    expected = 1.0
    for step, delta in ((1, 0.5), (2, -0.25)):
        position = adam(
            position,
            {"x": np.array([delta], np.float32)},
            state,
            learning_rate=0.1,
            beta1=BETA1,
            beta2=BETA2,
            tau=TAU,
        )
        first = BETA1 * first + (1 - BETA1) * delta
        second = BETA2 * second + (1 - BETA2) * delta**2
        # Flower counts the correction from two.
        rate = 0.1 * sqrt(1 - BETA2 ** (step + 1)) / (1 - BETA1 ** (step + 1))
        expected += rate * first / (sqrt(second) + TAU)
        assert position["x"][0] == pytest.approx(expected, rel=1e-6)


def test_adam_forgets_nothing_between_steps_and_shares_nothing_between_states() -> None:
    update = drawn(1)
    rates = {"learning_rate": 0.1, "beta1": BETA1, "beta2": BETA2, "tau": TAU}
    state = AdamState()
    once = adam(drawn(0), update, state, **rates)
    again = adam(drawn(0), update, state, **rates)
    fresh = adam(drawn(0), update, AdamState(), **rates)
    assert_array_equal(once["dense"], fresh["dense"])
    assert not np.array_equal(once["dense"], again["dense"])


def reply(grid: InProcessGrid, arrays: dict[str, np.typing.NDArray[np.float32]]) -> Message:
    """A client's answer as Flower's strategies expect it."""
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
            "metrics": MetricRecord({"num-examples": 1.0}),
        }
    )
    return grid.create_message(content, "train", 1, "1")


def test_adam_takes_the_steps_of_flowers_fedadam(tmp_path: Path) -> None:
    grid = InProcessGrid(ClientApp(), num_nodes=1)
    theirs = FlowerFedAdam(
        min_train_nodes=1, min_available_nodes=1, eta=0.05, beta_1=BETA1, beta_2=BETA2, tau=TAU
    )
    ours, state = drawn(0), AdamState()
    with flower_logs_to(tmp_path / "flower.log"):
        for step in range(1, 6):
            update = drawn(step)
            record = ArrayRecord({name: Array(value) for name, value in ours.items()})
            theirs.configure_train(step, record, ConfigRecord(), grid)
            trained = {name: value + update[name] for name, value in ours.items()}
            arrays, _ = theirs.aggregate_train(step, [reply(grid, trained)])
            ours = adam(ours, update, state, learning_rate=0.05, beta1=BETA1, beta2=BETA2, tau=TAU)
            assert arrays is not None
            for name, value in ours.items():
                assert_allclose(value, arrays[name].numpy(), rtol=1e-6, atol=1e-6)

"""Server optimisers by hand, and against Flower's own strategies on the same updates."""

from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedYogi
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.federation.transport.flower_log import flower_logs_to
from fedrec_flower.federation.transport.in_process import InProcessGrid
from fedrec_flower.strategies.aggregators.server_optimizers import (
    Adagrad,
    Adam,
    Average,
    Momentum,
    ServerOptimizer,
    Yogi,
)

BETA1, BETA2, TAU = 0.9, 0.99, 1e-3
Tensors = dict[str, NDArray[np.float32]]
Build = Callable[[float], ServerOptimizer]  # from the learning rate

OPTIMIZERS: dict[str, Build] = {
    "momentum": lambda rate: Momentum(rate, BETA1),
    "adagrad": lambda rate: Adagrad(rate, BETA1, TAU),
    "adam": lambda rate: Adam(rate, BETA1, TAU, BETA2),
    "yogi": lambda rate: Yogi(rate, BETA1, TAU, BETA2),
}
EVERY_OPTIMIZER = pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS)


def drawn(seed: int) -> dict[str, np.typing.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = {"table": (5, 3), "dense": (4,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def test_average_with_rate_one_adds_the_update() -> None:
    parameters, update = drawn(0), drawn(1)
    moved = Average(1.0).step(parameters, update)
    for name, value in parameters.items():
        assert_array_equal(moved[name], value + update[name])


def test_average_scales_the_update_by_its_rate() -> None:
    one = {"dense": np.array([1.0, 2.0], np.float32)}
    moved = Average(0.25).step(one, {"dense": np.array([4.0, -8.0], np.float32)})
    assert moved["dense"].tolist() == [1.0 + 0.25 * 4, 2.0 - 0.25 * 8]


def test_average_with_rate_zero_leaves_the_parameters() -> None:
    parameters = drawn(0)
    moved = Average(0.0).step(parameters, drawn(1))
    for name, value in parameters.items():
        assert_array_equal(moved[name], value)


@EVERY_OPTIMIZER
def test_optimizer_with_rate_zero_leaves_the_parameters(build: Build) -> None:
    parameters, optimizer = drawn(0), build(0.0)
    moved = optimizer.step(optimizer.step(parameters, drawn(1)), drawn(2))
    for name, value in parameters.items():
        assert_array_equal(moved[name], value)


@EVERY_OPTIMIZER
def test_optimizer_changes_neither_its_arguments_nor_their_type(build: Build) -> None:
    parameters, update, optimizer = drawn(0), drawn(1), build(0.5)
    for _ in range(2):
        moved = optimizer.step(parameters, update)
        assert {array.dtype for array in moved.values()} == {np.dtype(np.float32)}
        assert {array.dtype for array in optimizer.first.values()} == {np.dtype(np.float32)}
    for name in parameters:
        assert_array_equal(parameters[name], drawn(0)[name])
        assert_array_equal(update[name], drawn(1)[name])


@EVERY_OPTIMIZER
def test_restored_optimizer_continues_without_a_difference(build: Build) -> None:
    optimizer, position = build(0.1), drawn(0)
    for round_ in range(1, 4):
        position = optimizer.step(position, drawn(round_))
    state = {name: array.copy() for name, array in optimizer.state().items()}
    assert {name.partition("/")[0] for name in state} <= {"first", "second", "num_steps"}
    expected = optimizer.step(position, drawn(4))
    restored = build(0.1)
    restored.step(drawn(9), drawn(9))  # replaced by the restored state
    restored.restore(state)
    for name, value in restored.step(position, drawn(4)).items():
        assert_array_equal(value, expected[name])


def test_state_before_the_first_step_is_empty() -> None:
    optimizer, fresh = OPTIMIZERS["adam"](0.1), OPTIMIZERS["adam"](0.1)
    assert optimizer.state() == {}
    expected = fresh.step(drawn(0), drawn(1))
    optimizer.step(drawn(0), drawn(2))
    optimizer.restore({})
    for name, value in optimizer.step(drawn(0), drawn(1)).items():
        assert_array_equal(value, expected[name])


def test_momentum_zero_is_average() -> None:
    position, optimizer = drawn(0), Momentum(0.7, 0.0)
    for round_ in (1, 2):
        expected = Average(0.7).step(position, drawn(round_))
        position = optimizer.step(position, drawn(round_))
        for name, value in position.items():
            assert_array_equal(value, expected[name])


def test_momentum_continues_after_the_last_update() -> None:
    optimizer, position = Momentum(0.5, 0.5), {"x": np.array([0.0], np.float32)}
    for delta in (1.0, 0.0, 0.0):
        position = optimizer.step(position, {"x": np.array([delta], np.float32)})
    assert position["x"][0] == pytest.approx(0.5 * (1 + 0.5 + 0.25))


@pytest.mark.parametrize("name", ["adagrad", "yogi"])
def test_second_moments_by_hand_over_three_steps(name: str) -> None:
    optimizer, position = OPTIMIZERS[name](0.1), {"x": np.array([1.0], np.float32)}
    first = second = 0.0
    expected = 1.0
    for delta in (0.5, -0.25, 0.75):
        position = optimizer.step(position, {"x": np.array([delta], np.float32)})
        first = BETA1 * first + (1 - BETA1) * delta
        towards = -1 if second > delta**2 else 1
        second += delta**2 if name == "adagrad" else (1 - BETA2) * delta**2 * towards
        expected += 0.1 * first / (sqrt(second) + TAU)
        assert position["x"][0] == pytest.approx(expected, rel=1e-5)


def test_adam_by_hand_over_two_steps() -> None:
    optimizer, position = OPTIMIZERS["adam"](0.1), {"x": np.array([1.0], np.float32)}
    first = second = 0.0
    expected = 1.0
    for step, delta in ((1, 0.5), (2, -0.25)):
        position = optimizer.step(position, {"x": np.array([delta], np.float32)})
        first = BETA1 * first + (1 - BETA1) * delta
        second = BETA2 * second + (1 - BETA2) * delta**2
        # Flower counts the correction from two.
        rate = 0.1 * sqrt(1 - BETA2 ** (step + 1)) / (1 - BETA1 ** (step + 1))
        expected += rate * first / (sqrt(second) + TAU)
        assert position["x"][0] == pytest.approx(expected, rel=1e-6)


def test_adam_keeps_moments_between_steps_and_shares_none_between_optimizers() -> None:
    update = drawn(1)
    optimizer = OPTIMIZERS["adam"](0.1)
    once = optimizer.step(drawn(0), update)
    again = optimizer.step(drawn(0), update)
    fresh = OPTIMIZERS["adam"](0.1).step(drawn(0), update)
    assert_array_equal(once["dense"], fresh["dense"])
    assert not np.array_equal(once["dense"], again["dense"])


def reply(grid: InProcessGrid, arrays: Tensors) -> Message:
    """A client's answer as Flower's strategies expect it."""
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: Array(value) for name, value in arrays.items()}),
            "metrics": MetricRecord({"num-examples": 1.0}),
        }
    )
    return grid.create_message(content, "train", 1, "1")


def flowers(kind: type[FedAvg], **rates: float) -> FedAvg:
    """One of Flower's strategies for a single node."""
    knobs: dict[str, Any] = {"min_train_nodes": 1, "min_available_nodes": 1, **rates}
    return kind(**knobs)


@pytest.mark.parametrize(
    ("build", "theirs"),
    [
        pytest.param(
            OPTIMIZERS["momentum"],
            flowers(FedAvgM, server_learning_rate=0.05, server_momentum=BETA1),
            id="momentum",
        ),
        pytest.param(  # Flower's has no first moment
            lambda rate: Adagrad(rate, 0.0, TAU),
            flowers(FedAdagrad, eta=0.05, tau=TAU),
            id="adagrad",
        ),
        pytest.param(
            OPTIMIZERS["adam"],
            flowers(FedAdam, eta=0.05, beta_1=BETA1, beta_2=BETA2, tau=TAU),
            id="adam",
        ),
        pytest.param(
            OPTIMIZERS["yogi"],
            flowers(FedYogi, eta=0.05, beta_1=BETA1, beta_2=BETA2, tau=TAU),
            id="yogi",
        ),
    ],
)
def test_optimizer_takes_the_steps_of_flowers_strategy(
    tmp_path: Path, build: Build, theirs: FedAvg
) -> None:
    grid = InProcessGrid(ClientApp(), num_nodes=1)
    ours, optimizer = drawn(0), build(0.05)
    with flower_logs_to(tmp_path / "flower.log"):
        for round_ in range(1, 6):
            update = drawn(round_)
            record = ArrayRecord({name: Array(value) for name, value in ours.items()})
            theirs.configure_train(round_, record, ConfigRecord(), grid)
            trained = {name: value + update[name] for name, value in ours.items()}
            arrays, _ = theirs.aggregate_train(round_, [reply(grid, trained)])
            ours = optimizer.step(ours, update)
            assert arrays is not None
            for name, value in ours.items():
                assert_allclose(value, arrays[name].numpy(), rtol=1e-6, atol=1e-6)

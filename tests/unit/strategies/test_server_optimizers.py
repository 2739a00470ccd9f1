"""Server optimisers by hand, and against Flower's own strategies on the same updates."""

from functools import partial
from math import sqrt
from pathlib import Path
from typing import Any, Protocol

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
    Moments,
    adagrad,
    adam,
    average,
    momentum,
    yogi,
)

BETA1, BETA2, TAU = 0.9, 0.99, 1e-3
Tensors = dict[str, NDArray[np.float32]]


class Step(Protocol):
    """An optimiser with its decays bound."""

    def __call__(
        self, parameters: Tensors, update: Tensors, moments: Moments, *, learning_rate: float
    ) -> Tensors: ...


OPTIMIZERS: dict[str, Step] = {
    "momentum": partial(momentum, momentum=BETA1),
    "adagrad": partial(adagrad, beta1=BETA1, tau=TAU),
    "adam": partial(adam, beta1=BETA1, beta2=BETA2, tau=TAU),
    "yogi": partial(yogi, beta1=BETA1, beta2=BETA2, tau=TAU),
}
EVERY_OPTIMIZER = pytest.mark.parametrize("step", OPTIMIZERS.values(), ids=OPTIMIZERS)


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


def test_averaging_at_a_zero_rate_leaves_the_parameters() -> None:
    parameters = drawn(0)
    moved = average(parameters, drawn(1), 0.0)
    for name, value in parameters.items():
        assert_array_equal(moved[name], value)


@EVERY_OPTIMIZER
def test_a_zero_rate_leaves_the_parameters(step: Step) -> None:
    parameters, moments = drawn(0), Moments()
    moved = step(
        step(parameters, drawn(1), moments, learning_rate=0.0), drawn(2), moments, learning_rate=0.0
    )
    for name, value in parameters.items():
        assert_array_equal(moved[name], value)


@EVERY_OPTIMIZER
def test_no_optimiser_changes_its_arguments_or_their_type(step: Step) -> None:
    parameters, update, moments = drawn(0), drawn(1), Moments()
    for _ in range(2):
        moved = step(parameters, update, moments, learning_rate=0.5)
        assert {array.dtype for array in moved.values()} == {np.dtype(np.float32)}
        assert {array.dtype for array in moments.first.values()} == {np.dtype(np.float32)}
    for name in parameters:
        assert_array_equal(parameters[name], drawn(0)[name])
        assert_array_equal(update[name], drawn(1)[name])


@EVERY_OPTIMIZER
def test_what_is_restored_goes_on_as_if_nothing_had_happened(step: Step) -> None:
    moments, position = Moments(), drawn(0)
    for round_ in range(1, 4):
        position = step(position, drawn(round_), moments, learning_rate=0.1)
    kept = {name: array.copy() for name, array in moments.arrays().items()}
    assert {name.partition("/")[0] for name in kept} <= {"first", "second", "num_steps"}
    on = step(position, drawn(4), moments, learning_rate=0.1)
    again = Moments()
    step(drawn(9), drawn(9), again, learning_rate=0.1)  # to be forgotten
    again.restore(kept)
    for name, value in step(position, drawn(4), again, learning_rate=0.1).items():
        assert_array_equal(value, on[name])


def test_before_a_step_there_is_nothing_to_keep() -> None:
    moments = Moments()
    assert moments.arrays() == {}
    step = OPTIMIZERS["adam"]
    fresh = step(drawn(0), drawn(1), Moments(), learning_rate=0.1)
    step(drawn(0), drawn(2), moments, learning_rate=0.1)
    moments.restore({})
    for name, value in step(drawn(0), drawn(1), moments, learning_rate=0.1).items():
        assert_array_equal(value, fresh[name])


def test_momentum_none_is_average() -> None:
    position, moments = drawn(0), Moments()
    for round_ in (1, 2):
        expected = average(position, drawn(round_), 0.7)
        position = momentum(position, drawn(round_), moments, learning_rate=0.7, momentum=0.0)
        for name, value in position.items():
            assert_array_equal(value, expected[name])


def test_momentum_goes_on_where_updates_end() -> None:
    moments, position = Moments(), {"x": np.array([0.0], np.float32)}
    for delta in (1.0, 0.0, 0.0):
        update = {"x": np.array([delta], np.float32)}
        position = momentum(position, update, moments, learning_rate=0.5, momentum=0.5)
    assert position["x"][0] == pytest.approx(0.5 * (1 + 0.5 + 0.25))


@pytest.mark.parametrize("name", ["adagrad", "yogi"])
def test_second_moments_by_hand_over_three_steps(name: str) -> None:
    moments, position = Moments(), {"x": np.array([1.0], np.float32)}
    first = second = 0.0
    expected = 1.0
    for delta in (0.5, -0.25, 0.75):
        update = {"x": np.array([delta], np.float32)}
        position = OPTIMIZERS[name](position, update, moments, learning_rate=0.1)
        first = BETA1 * first + (1 - BETA1) * delta
        towards = -1 if second > delta**2 else 1
        second += delta**2 if name == "adagrad" else (1 - BETA2) * delta**2 * towards
        expected += 0.1 * first / (sqrt(second) + TAU)
        assert position["x"][0] == pytest.approx(expected, rel=1e-5)


def test_adam_by_hand_over_two_steps() -> None:
    state, position = Moments(), {"x": np.array([1.0], np.float32)}
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
    state = Moments()
    once = adam(drawn(0), update, state, **rates)
    again = adam(drawn(0), update, state, **rates)
    fresh = adam(drawn(0), update, Moments(), **rates)
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
    ("step", "theirs"),
    [
        pytest.param(
            OPTIMIZERS["momentum"],
            flowers(FedAvgM, server_learning_rate=0.05, server_momentum=BETA1),
            id="momentum",
        ),
        pytest.param(  # Flower's has no first moment
            partial(adagrad, beta1=0.0, tau=TAU),
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
def test_it_takes_the_steps_of_flowers_own(tmp_path: Path, step: Step, theirs: FedAvg) -> None:
    grid = InProcessGrid(ClientApp(), num_nodes=1)
    ours, moments = drawn(0), Moments()
    with flower_logs_to(tmp_path / "flower.log"):
        for round_ in range(1, 6):
            update = drawn(round_)
            record = ArrayRecord({name: Array(value) for name, value in ours.items()})
            theirs.configure_train(round_, record, ConfigRecord(), grid)
            trained = {name: value + update[name] for name, value in ours.items()}
            arrays, _ = theirs.aggregate_train(round_, [reply(grid, trained)])
            ours = step(ours, update, moments, learning_rate=0.05)
            assert arrays is not None
            for name, value in ours.items():
                assert_allclose(value, arrays[name].numpy(), rtol=1e-6, atol=1e-6)

"""Integers stand for sums: to half a step, or clipped and counted, and never wrapped around."""

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.communication.secure_aggregation.quantization import (
    CohortSum,
    Quantizer,
    vector_length,
)
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.core.updates import UpdateSum

DEFAULT = SecAgg(
    num_neighbours=4,
    threshold=0.6,
    min_nodes=3,
    min_clients=3,
    weights="examples",
    clip_range=1.0,
    value_bits=None,
    modulus_bits=32,
    rounding="stochastic",
    client_weight=50.0,
)
SHAPES = {"table": (3, 2), "dense": (2,)}


def rng(seed: int = 3) -> np.random.Generator:
    return np.random.default_rng(seed)


# --- one vector ---------------------------------------------------------------------------------


@given(
    values=st.lists(st.floats(-2, 2), min_size=1, max_size=20),
    value_bits=st.integers(8, 20),
    rounding=st.sampled_from(["stochastic", "nearest"]),
    modulus_bits=st.sampled_from([32, 64]),
)
def test_a_value_comes_back_to_a_step_or_clipped(
    values: list[float],
    value_bits: int,
    rounding: Literal["stochastic", "nearest"],
    modulus_bits: Literal[32, 64],
) -> None:
    quantizer = Quantizer(value_bits, modulus_bits, rounding)
    integers, clipped = quantizer.encode(np.array(values), 1.0, 1.0, rng())
    step = 1.0 / 2 ** (value_bits - 1) * (1 if rounding == "stochastic" else 0.5)
    assert_allclose(quantizer.decode(integers, 1.0), np.clip(values, -1, 1), atol=step)
    assert clipped >= np.count_nonzero(np.abs(values) > 1 + step)
    assert clipped <= np.count_nonzero(np.abs(values) > 1)


def test_stochastic_rounding_is_right_on_average_and_nearest_is_not() -> None:
    values, step = np.full(20_000, 0.3 / 128), 1 / 128
    for rounding, error in (("stochastic", 0.02 * step), ("nearest", 0.3 * step)):
        quantizer = Quantizer(8, 32, rounding)  # type: ignore[arg-type]  # a literal of the two
        found = quantizer.decode(quantizer.encode(values, 1.0, 1.0, rng())[0], 1.0).mean()
        assert abs(found - values[0]) <= error
        assert (rounding == "nearest") == (found == 0.0)


def test_whole_steps_and_zeros_are_never_rounded() -> None:
    quantizer = Quantizer(8, 32, "stochastic")
    values = np.array([0.0, 1 / 128, -5 / 128, 1.0, -1.0])
    for seed in range(20):
        integers, _ = quantizer.encode(values, 1.0, 1.0, rng(seed))
        assert_array_equal(quantizer.decode(integers, 1.0), values)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        Quantizer(8, 32, "nearest").encode(np.array([wrong]), 1.0, 1.0, None)


# --- sums ---------------------------------------------------------------------------------------


def said(seed: int, weight: int, scale: float) -> CohortSum:
    drawn = rng(seed)
    tensors = {n: drawn.normal(size=shape) * weight * scale for n, shape in SHAPES.items()}
    total = UpdateSum(tensors, float(weight), drawn.integers(0, weight + 1, 3).astype(np.float64))
    return CohortSum(total, loss=0.7 * weight, replied=1, clipped=0)


@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=30), scale=st.floats(0, 1e6))
def test_no_sum_of_clipped_clients_wraps_however_huge_they_are(
    weights: list[int], scale: float
) -> None:
    """One client per node, the worst case: every value at its bound and of one sign."""
    cohort = len(weights)
    told = [said(seed, w, scale) for seed, w in enumerate(weights)]
    for one in told:
        one.total.tensors["dense"][:] = [np.float64(1e300), -np.float64(1e300)]
    total = np.zeros(vector_length(SHAPES, 3), np.uint32)
    for seed, one in enumerate(told):
        total += DEFAULT.quantize_sum(one, 1, cohort, rng(seed))
    found = DEFAULT.dequantize_sum(total, cohort, SHAPES, 3)
    weight = float(sum(weights))
    assert_array_equal(found.total.tensors["dense"], [weight, -weight])
    bound = np.array(
        [np.clip(one.total.tensors["table"], -w, w) for one, w in zip(told, weights, strict=True)]
    )
    step = 1.0 / (DEFAULT.quantizer(cohort).steps)
    assert_allclose(found.total.tensors["table"], bound.sum(axis=0), atol=cohort * step)
    assert (found.total.weight, found.replied) == (weight, cohort)
    assert found.loss == pytest.approx(0.7 * weight, abs=cohort * 64 * step)
    assert_array_equal(found.total.row_weight, sum(one.total.row_weight for one in told))
    assert found.clipped >= 2 * cohort


def test_weights_counts_and_row_weights_are_exact() -> None:
    total = sum(
        (DEFAULT.quantize_sum(said(seed, 50, 0.1), 1, 30, rng(seed)) for seed in range(30)),
        np.zeros(vector_length(SHAPES, 3), np.uint32),
    )
    found = DEFAULT.dequantize_sum(total, 30, SHAPES, 3)
    assert (found.total.weight, found.replied, found.clipped) == (1500.0, 30, 0)


def test_a_node_of_many_clients_says_what_they_would_say_one_by_one() -> None:
    each = [said(seed, 10, 0.05) for seed in range(6)]
    tensors = {n: sum(one.total.tensors[n] for one in each) for n in SHAPES}
    rows: Any = sum(one.total.row_weight for one in each)
    joint = CohortSum(UpdateSum(tensors, 60.0, rows), 6 * 7.0, 6, 0)  # type: ignore[arg-type]  # sums of arrays
    apart = np.zeros(vector_length(SHAPES, 3), np.uint32)
    for seed, one in enumerate(each):
        apart += DEFAULT.quantize_sum(one, 1, 6, rng(seed))
    found, other = (
        DEFAULT.dequantize_sum(vector, 6, SHAPES, 3)
        for vector in (apart, DEFAULT.quantize_sum(joint, 6, 6, rng()))
    )
    step = 1.0 / DEFAULT.quantizer(6).steps
    for name in SHAPES:
        assert_allclose(found.total.tensors[name], other.total.tensors[name], atol=7 * step)
    assert_array_equal(found.total.row_weight, other.total.row_weight)
    assert (found.total.weight, found.replied) == (other.total.weight, other.replied)


# --- settings -----------------------------------------------------------------------------------


@given(st.integers(0, 2**32), st.integers(8, 16), st.sampled_from(["stochastic", "nearest"]))
def test_one_client_changes_a_rounded_sum_by_its_length_and_the_rounding(
    seed: int, bits: int, rounding: Literal["stochastic", "nearest"]
) -> None:
    secure = replace(DEFAULT, value_bits=bits, rounding=rounding, clip_range=2.0)
    others, client = rng(seed).normal(size=(2, 100))
    quantizer, apart = secure.quantizer(10), secure.max_rounding_error(10) * np.sqrt(100)
    with_it, without = (
        quantizer.decode(quantizer.encode(value, 2.0, 10.0, rng(1))[0], 2.0)
        for value in (others + client, others)
    )
    assert np.linalg.norm(with_it - without) <= np.linalg.norm(client) + apart


def test_rounding_is_no_more_than_a_step_of_the_largest_cohort() -> None:
    secure = replace(DEFAULT, value_bits=8, clip_range=2.0)
    assert secure.max_rounding_error(10) == 2.0 / 2**7


@example(clients=64, weight=64, wide=True)  # whose room a float64 took for a bit more
@given(clients=st.integers(1, 10**5), weight=st.integers(1, 10**4), wide=st.booleans())
def test_as_many_bits_as_fit_and_not_one_more(clients: int, weight: int, wide: bool) -> None:  # noqa: FBT001  # hypothesis passes by name
    modulus: Literal[32, 64] = 64 if wide else 32
    settings = replace(DEFAULT, client_weight=float(weight), modulus_bits=modulus)
    largest = 2 ** (modulus - 1) - 1
    if clients * weight > largest:
        return
    steps = settings.quantizer(clients).steps
    assert clients * weight * steps <= largest
    assert 2 * clients * weight * steps > largest or steps == 2**51  # a float64 has no more


def test_bits_that_could_wrap_are_refused_and_those_that_cannot_are_taken() -> None:
    # 100 clients of weight 50: 2^31 / 5000 is between 2^18 and 2^19.
    replace(DEFAULT, value_bits=19).check(3, 100)
    with pytest.raises(ConfigError, match=r"would wrap beyond 19 bits.*or set modulus_bits=64"):
        replace(DEFAULT, value_bits=20).check(3, 100)
    replace(DEFAULT, value_bits=20, modulus_bits=64).check(3, 100)
    with pytest.raises(ConfigError, match="leaves 3 bits"):
        DEFAULT.check(3, 10_000_000)


def test_asked_bits_give_way_to_a_cohort_that_came_out_larger() -> None:
    asked = replace(DEFAULT, value_bits=19)
    assert asked.quantizer(100).value_bits == 19
    assert asked.quantizer(400).value_bits == 17


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_neighbours": 3}, "num_neighbours=3 is impossible"),
        ({"num_neighbours": 0}, "num_neighbours=0 is impossible"),
        ({"num_neighbours": 2, "min_nodes": 5}, "from min_nodes - 1 = 4 on"),
        ({"threshold": 0.5}, "threshold=0.5 is impossible"),
        ({"threshold": 1.1}, "threshold=1.1 is impossible"),
        ({"min_nodes": 1}, "min_nodes must be 2 or more"),
        ({"min_clients": 1}, "min_clients must be 2 or more"),
        ({"clip_range": 0.0}, "clip_range must be above 0"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        replace(DEFAULT, **change)


def test_too_few_nodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_nodes=3 is more than the 2 nodes"):
        DEFAULT.check(2, 10)


@pytest.mark.parametrize(("num_members", "threshold"), [(3, 3), (5, 3), (10, 3), (100, 3)])
def test_the_threshold_is_a_share_of_a_node_and_its_neighbours(
    num_members: int, threshold: int
) -> None:
    # Four neighbours and oneself: .6 * 5 = 3, and never less than min_nodes.
    assert DEFAULT.coordinator(num_members).threshold == threshold
    complete = replace(DEFAULT, num_neighbours=None)
    assert complete.coordinator(100).threshold == 60


def test_no_secret_can_be_put_together_by_two_groups_whatever_the_settings() -> None:
    for share in (0.501, 0.6, 0.75, 1.0):
        for num_members in range(3, 60):
            coordinator = replace(DEFAULT, threshold=share).coordinator(num_members)
            holders = 1 + len(coordinator.neighbours[0])
            assert holders < 2 * coordinator.threshold

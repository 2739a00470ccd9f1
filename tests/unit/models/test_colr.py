"""Laws of low-rank item updates: adding a change to Q preserves scores; messages are small."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Tensors
from fedrec_flower.experiment.compatibility import check_strategy
from fedrec_flower.models.colr import CoLR
from fedrec_flower.models.mf import MF

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

NUM_USERS, NUM_ITEMS, DIM = 3, 6, 4
Task = Literal["ranking", "rating"]
Learns = Literal["items", "directions"]
VECTORS, ITEMS, DIRECTIONS = "item_embedding.weight", "item_factors.weight", "directions"
EITHER = pytest.mark.parametrize("learns", ["items", "directions"])


def colr(learns: Learns, rank: int, task: Task = "ranking", dim: int = DIM) -> CoLR:
    return CoLR(NUM_USERS, NUM_ITEMS, (1.0, 5.0), task, dim, 0.1, rank, learns)


def values(model: MF) -> Tensors:
    return {name: value.detach().numpy().copy() for name, value in model.named_parameters()}


def noise(model: MF) -> Tensors:
    """Random values for every parameter."""
    rng = np.random.default_rng(5)
    return {n: rng.normal(size=v.shape).astype(np.float32) for n, v in values(model).items()}


def scores(model: MF, tensors: Tensors) -> NDArray[np.float32]:
    model.load({name: value.copy() for name, value in tensors.items()})
    all_scores: NDArray[np.float32] = model.score_all(torch.arange(NUM_USERS)).detach().numpy()
    return all_scores


def gradients(model: MF, tensors: Tensors) -> Tensors:
    """Gradients of a smooth function of all scores."""
    model.load({name: value.copy() for name, value in tensors.items()})
    model.zero_grad()
    torch.autograd.backward(model.score_all(torch.arange(NUM_USERS)).sigmoid().log().sum())
    return {n: v.grad.numpy().copy() for n, v in model.named_parameters() if v.grad is not None}


def as_mf(tensors: Tensors) -> tuple[MF, Tensors]:
    """`MF` with the summed item vectors."""
    model = MF(NUM_USERS, NUM_ITEMS, (1.0, 5.0), "ranking", tensors[VECTORS].shape[1], 0.1)
    whole = tensors[VECTORS] + tensors[ITEMS] @ tensors[DIRECTIONS]
    return model, {n: tensors[n] for n in values(model)} | {VECTORS: whole}


@given(
    st.sampled_from(["items", "directions"]),
    st.sampled_from(["ranking", "rating"]),
    st.integers(1, DIM),
    st.integers(0, 9),
)
def test_after_server_step_preserves_scores(
    learns: Learns, task: Task, rank: int, seed: int
) -> None:
    model = colr(learns, rank, task)
    before = noise(model)
    after = model.after_server_step(before, np.random.default_rng(seed))
    assert_allclose(scores(model, after), scores(model, before), rtol=1e-4, atol=1e-5)
    trained, random = (ITEMS, DIRECTIONS) if learns == "items" else (DIRECTIONS, ITEMS)
    assert not after[trained].any()
    assert (after[random] != before[random]).any()
    assert before.keys() == after.keys()


@EITHER
def test_after_server_step_treats_versions_separately_with_common_directions(
    learns: Learns,
) -> None:
    model = colr(learns, 2)
    one = noise(model)
    two = {name: value[::-1].copy() for name, value in one.items()}
    both = {name: np.stack([one[name], two[name]]) for name in one}
    versions_after = model.after_server_step(both, np.random.default_rng(0))
    for place, alone in enumerate([one, two]):
        for name, value in model.after_server_step(alone, np.random.default_rng(0)).items():
            assert_allclose(versions_after[name][place], value, rtol=1e-6)


@EITHER
def test_gradient_step_at_full_rank_equals_that_of_mf(learns: Learns) -> None:
    model = colr(learns, rank=NUM_ITEMS, dim=NUM_ITEMS)
    names = [name for name, _ in model.named_parameters()]
    initial = model.initial(names, np.random.default_rng(3))
    slopes = gradients(model, initial)
    trained = ITEMS if learns == "items" else DIRECTIONS
    stepped = initial | {trained: initial[trained] - 0.5 * slopes[trained]}
    result = model.after_server_step(stepped, np.random.default_rng(4))[VECTORS]
    plain, theirs = as_mf(initial)
    expected = theirs[VECTORS] - 0.5 * gradients(plain, theirs)[VECTORS]
    assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_directions_equal_item_vectors_if_random_factors_are_the_identity() -> None:
    model = colr("directions", rank=NUM_ITEMS, dim=NUM_ITEMS)
    tensors = noise(model) | {ITEMS: np.eye(NUM_ITEMS, dtype=np.float32)}
    plain, theirs = as_mf(tensors)
    assert_allclose(scores(model, tensors), scores(plain, theirs), rtol=1e-5)
    assert_allclose(
        gradients(model, tensors)[DIRECTIONS], gradients(plain, theirs)[VECTORS], rtol=1e-4
    )


@EITHER
@pytest.mark.parametrize("rank", [1, 3])
def test_random_factors_are_orthogonal_and_preserve_mean_length(learns: Learns, rank: int) -> None:
    name, length = (DIRECTIONS, DIM) if learns == "items" else (ITEMS, NUM_ITEMS)
    model = colr(learns, rank)
    draws = [model.initial([name], np.random.default_rng(s))[name] for s in range(2000)]
    wide = np.stack([draw if learns == "items" else draw.T for draw in draws])
    assert_allclose(wide[0] @ wide[0].T, length / rank * np.eye(rank), atol=1e-5)
    mean = (wide.transpose(0, 2, 1) @ wide).mean(axis=0)
    assert_allclose(mean, np.eye(length), atol=0.2)


@EITHER
@pytest.mark.parametrize("num_rounds", [1, 3])
def test_item_change_of_a_round_has_at_most_the_configured_rank(
    federate: "Federate", learns: Learns, num_rounds: int
) -> None:
    rank = 2
    chosen = (f"model.learns={learns}", f"model.rank={rank}", f"num_rounds={num_rounds}")
    ran = federate("model=colr", *chosen)
    moved = ran.shared[VECTORS] - ran.setup.initial(ran.strategy)[VECTORS]
    lengths = np.linalg.svd(moved, compute_uv=False)
    assert (lengths > 1e-4 * lengths[0]).sum() == rank * num_rounds
    trained = ITEMS if learns == "items" else DIRECTIONS
    assert not ran.shared[trained].any()  # so the random factor does not change scores


@EITHER
def test_colr_trainers_agree(federate: "Federate", learns: Learns) -> None:
    chosen = ("model=colr", f"model.learns={learns}", "model.rank=2")
    one, other = (federate(*chosen, f"training.engine={e}") for e in ("sequential", "vectorized"))
    for name, value in one.shared.items():
        assert_allclose(other.shared[name], value, rtol=1e-4, atol=1e-6)
    assert_allclose(list(other.watcher.losses.values()), list(one.watcher.losses.values()), 1e-5)


@EITHER
def test_clients_send_only_the_trained_factor_and_biases(
    federate: "Federate", learns: Learns
) -> None:
    ran = federate("model=colr", f"model.learns={learns}", "num_rounds=1")
    trained = ITEMS if learns == "items" else DIRECTIONS
    assert set(ran.server.reply_schema().shapes) == {trained, "item_bias.weight"}
    assert ran.setup.model.frozen == {VECTORS, ITEMS, DIRECTIONS} - {trained}


def test_bytes_up_of_directions_do_not_depend_on_touched_items(federate: "Federate") -> None:
    chosen, dim = ("model=colr", "model.learns=directions", "num_rounds=1"), 8
    few, many = (federate(*chosen, f"model.rank={rank}").outcome.bytes_up for rank in (2, 5))
    assert many - few == (5 - 2) * dim * np.dtype(np.float32).itemsize


def test_bytes_up_of_items_are_rank_values_per_touched_item(federate: "Federate") -> None:
    # In this large catalogue, clients touch too few items to send whole tables.
    chosen, dim = ("dataset.num_items=600", "num_rounds=1"), 8
    whole = federate("model=mf", *chosen).outcome.bytes_up
    ranks = (1, 4)
    sent = [federate("model=colr", f"model.rank={r}", *chosen).outcome.bytes_up for r in ranks]
    spared = [(whole - up) / (dim - rank) for rank, up in zip(ranks, sent, strict=True)]
    assert spared[0] == pytest.approx(spared[1], abs=1)  # bytes are rounded


@pytest.mark.parametrize(
    "choice",
    ["strategy=local_only", "federation=centralized", "strategy=clustered", "strategy=median"],
)
def test_colr_learns_with_local_centralized_and_silo_training(
    federate: "Federate", choice: str
) -> None:
    ran = federate("model=colr", "training.learning_rate=5.0", choice)
    losses = list(ran.watcher.losses.values())
    assert losses[-1] < losses[0]
    assert all(np.isfinite(value).all() for value in ran.shared.values())


def test_colr_rejects_asynchronous_strategies(
    federate: "Federate",
) -> None:
    buffered, prompt = (federate("model=colr", f"strategy={s}") for s in ("fedbuff", "fedavg"))
    with pytest.raises(ConfigError, match="FedBuff does not fit CoLR"):
        check_strategy(buffered.strategy, buffered.setup.model, buffered.setup.privacy_setup.secure)
    check_strategy(prompt.strategy, prompt.setup.model, prompt.setup.privacy_setup.secure)


@pytest.mark.parametrize(
    ("learns", "rank", "dim", "most"),
    [("items", 0, 4, 4), ("items", 5, 4, 4), ("directions", 7, 9, NUM_ITEMS)],
)
def test_colr_rejects_impossible_ranks(learns: Learns, rank: int, dim: int, most: int) -> None:
    with pytest.raises(ConfigError, match=rf"model\.rank={rank} is impossible: .* 1 to {most}"):
        colr(learns, rank, dim=dim)


def test_after_server_step_without_shared_parameters_returns_none() -> None:
    assert colr("items", 2).after_server_step({}, np.random.default_rng(0)) == {}


def test_after_server_step_draws_new_directions_each_time() -> None:
    model, rng = colr("items", 2), np.random.default_rng(0)
    first = model.after_server_step(noise(model), rng)
    assert_array_equal(first[VECTORS], model.after_server_step(first, rng)[VECTORS])
    assert (model.after_server_step(first, rng)[DIRECTIONS] != first[DIRECTIONS]).any()

"""Closed-form models against plain numpy on the dense matrix of users and items."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import ClosedFormRecommender, incidence
from fedrec_flower.models.ease import EASE
from fedrec_flower.models.ials import IALS
from fedrec_flower.models.itemknn import ItemKNN
from fedrec_flower.models.ops.cooccurrence import cooccurrences, symmetric
from fedrec_flower.models.popularity import Popularity
from fedrec_flower.models.random import RandomScores

Matrix = NDArray[np.float64]

NUM_USERS, NUM_ITEMS, DIM = 12, 9, 3
ALPHA, LAMBDA, NU = 0.3, 0.05, 0.7  # iALS: unobserved weight, regularization, exponent


def matrix(seed: int, num_users: int = NUM_USERS) -> Matrix:
    """Random interactions; the last item has no users, and the first user has no items."""
    had = np.random.default_rng(seed).random((num_users, NUM_ITEMS)) < 0.4
    had[0], had[:, -1] = False, False
    return had.astype(np.float64)


def columns(had: Matrix) -> Columns:
    _, item = np.nonzero(had)
    offsets = np.concatenate([[0], np.cumsum(had.sum(axis=1))]).astype(np.int64)
    return Columns(offsets, item.astype(np.int32), None)


def fitted(model: ClosedFormRecommender, had: Matrix, num_rounds: int = 1) -> Tensors:
    """Solve a model and load it for the same users; returns its shared parameters."""
    initial = model.initial(model.shared_names(), np.random.default_rng(0))
    result = model.solve_alone(columns(had), initial, num_rounds)
    model.load(result)
    model.set_history(columns(had))
    return result


def scores(model: ClosedFormRecommender) -> NDArray[np.float32]:
    result: NDArray[np.float32] = model.score_all(torch.arange(NUM_USERS)).numpy(force=True)
    return result


SEEDS = pytest.mark.parametrize("seed", range(5))


# --- popularity, random -----------------------------------------------------------------------


@SEEDS
def test_popularity_counts_the_users_of_each_item(seed: int) -> None:
    had, model = matrix(seed), Popularity(NUM_USERS, NUM_ITEMS)
    result = fitted(model, had)
    _, item = np.nonzero(had)
    assert_array_equal(result["popularity"], np.bincount(item, minlength=NUM_ITEMS))
    assert_array_equal(scores(model), np.tile(result["popularity"], (NUM_USERS, 1)))


def test_random_scores_are_uniform_and_differ_between_users() -> None:
    model = RandomScores(NUM_USERS, 2000)
    model.load(model.initial(["key"], np.random.default_rng(1)))
    result = scores(model)
    assert 0 <= result.min() < result.max() < 1
    quarters, _ = np.histogram(result, bins=4, range=(0, 1))
    assert_allclose(quarters / result.size, 1 / 4, atol=0.02)  # seven standard errors
    between: Matrix = np.atleast_2d(np.corrcoef(result))
    assert abs(between - np.eye(NUM_USERS)).max() < 5 / np.sqrt(2000)


def test_random_scores_are_stable_and_personal() -> None:
    one, again = RandomScores(3, NUM_ITEMS), RandomScores(2, NUM_ITEMS)
    key = one.initial(["key"], np.random.default_rng(1))["key"]
    one.load({"key": key})
    again.load({"key": key[[2, 0]]})
    users = torch.arange(3)
    assert_array_equal(one.score_all(users)[[2, 0]], again.score_all(users[:2]))


# --- co-occurrence ----------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), cells=st.integers(1, 200))
def test_cooccurrences_equal_the_gram_matrix_for_any_block_size(seed: int, cells: int) -> None:
    had = matrix(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedrec_flower.models.ops.cooccurrence._MAX_CELLS_PER_BLOCK", cells)
        triangle = cooccurrences(incidence(columns(had), NUM_ITEMS))
    assert len(triangle) == NUM_ITEMS * (NUM_ITEMS + 1) / 2
    assert_array_equal(symmetric(triangle, NUM_ITEMS), had.T @ had)


# --- EASE -------------------------------------------------------------------------------------


@SEEDS
def test_ease_equals_algorithm_1_of_steck(seed: int) -> None:
    had, model = matrix(seed), EASE(NUM_USERS, NUM_ITEMS, regularization=2.5)
    result = fitted(model, had)
    inverse = np.linalg.inv(had.T @ had + 2.5 * np.eye(NUM_ITEMS))
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    assert_allclose(result["item_weights"], weights, rtol=1e-5, atol=1e-6)
    assert_allclose(scores(model), had @ weights, rtol=1e-5, atol=1e-6)


@SEEDS
def test_ease_weights_minimise_the_objective_with_zero_diagonal(seed: int) -> None:
    had, model = matrix(seed), EASE(NUM_USERS, NUM_ITEMS, regularization=2.5)
    weights = fitted(model, had)["item_weights"].astype(np.float64)

    def objective(weights: Matrix) -> float:
        return float(((had - had @ weights) ** 2).sum() + 2.5 * (weights**2).sum())

    assert_array_equal(np.diag(weights), 0.0)
    rng = np.random.default_rng(seed)
    for _ in range(20):
        change = rng.normal(scale=0.01, size=weights.shape)
        np.fill_diagonal(change, 0.0)
        assert objective(weights + change) > objective(weights)


# --- ItemKNN ----------------------------------------------------------------------------------


def cosine(had: Matrix, shrinkage: float) -> Matrix:
    length = np.sqrt(had.sum(axis=0))
    bound = np.outer(length, length) + shrinkage
    similar = np.divide(had.T @ had, bound, out=np.zeros(bound.shape), where=bound > 0)
    np.fill_diagonal(similar, 0.0)
    return similar


@SEEDS
@pytest.mark.parametrize("shrinkage", [0.0, 3.0])
@pytest.mark.parametrize("num_neighbours", [1, 3, NUM_ITEMS, 20])
def test_itemknn_sums_the_nearest_cosines(seed: int, shrinkage: float, num_neighbours: int) -> None:
    had = matrix(seed)
    model = ItemKNN(NUM_USERS, NUM_ITEMS, num_neighbours, shrinkage)
    fitted(model, had)
    nearest_cosines = cosine(had, shrinkage)
    for row in nearest_cosines:
        nearest = np.lexsort((np.arange(NUM_ITEMS), -row))  # of equal items, the lower code first
        row[nearest[num_neighbours:]] = 0.0
    assert_allclose(scores(model), had @ nearest_cosines.T, rtol=1e-5, atol=1e-6)


def test_itemknn_does_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    had, model = matrix(3), ItemKNN(NUM_USERS, NUM_ITEMS, 4, 1.0)
    whole = fitted(model, had)
    monkeypatch.setattr("fedrec_flower.models.itemknn._MAX_CELLS_PER_BLOCK", 2 * NUM_ITEMS)
    for name, value in fitted(model, had).items():
        assert_array_equal(value, whole[name])


# --- iALS -------------------------------------------------------------------------------------


def ials() -> IALS:
    return IALS(NUM_USERS, NUM_ITEMS, DIM, ALPHA, LAMBDA, NU, init_std=0.5)


def row_by_row(had: Matrix, vectors: Matrix) -> Matrix:
    """One ridge regression per row of the matrix, on all columns with their weights."""
    solved = np.zeros((len(had), DIM))
    for row, row_values in enumerate(had):
        weight = np.diag(row_values + ALPHA)
        pull = LAMBDA * (row_values.sum() + ALPHA * len(vectors)) ** NU
        system = vectors.T @ weight @ vectors + pull * np.eye(DIM)
        solved[row] = np.linalg.solve(system, vectors.T @ row_values)
    return solved


def ials_objective(had: Matrix, users: Matrix, items: Matrix) -> float:
    score = users @ items.T
    fit = (had * (score - 1) ** 2).sum() + ALPHA * (score**2).sum()
    by_user = (had.sum(axis=1) + ALPHA * NUM_ITEMS) ** NU @ (users**2).sum(axis=1)
    by_item = (had.sum(axis=0) + ALPHA * NUM_USERS) ** NU @ (items**2).sum(axis=1)
    return float(fit + LAMBDA * (by_user + by_item))


@SEEDS
def test_a_round_of_ials_is_a_ridge_regression_per_user_then_per_item(seed: int) -> None:
    had, model = matrix(seed), ials()
    initial = model.initial(["item_vectors"], np.random.default_rng(0))["item_vectors"]
    result = fitted(model, had)["item_vectors"]
    items = row_by_row(had.T, row_by_row(had, initial.astype(np.float64)))
    assert_allclose(result, items, rtol=1e-5, atol=1e-6)
    assert_allclose(scores(model), row_by_row(had, items) @ items.T, rtol=1e-4, atol=1e-5)


@SEEDS
def test_ials_objective_never_increases(seed: int) -> None:
    had, model = matrix(seed), ials()
    reached = []
    for num_rounds in range(8):
        items = fitted(model, had, num_rounds)["item_vectors"].astype(np.float64)
        reached.append(ials_objective(had, row_by_row(had, items), items))
    assert reached[-1] < 0.9 * reached[0]
    # At convergence, rounding the vectors to float32 may raise the objective slightly.
    assert (np.diff(reached) <= 1e-6 * reached[0]).all()


def test_ials_converges_to_a_local_minimum() -> None:
    had, model, rng = matrix(2), ials(), np.random.default_rng(0)
    items = fitted(model, had, 200)["item_vectors"].astype(np.float64)
    users = row_by_row(had, items)
    least = ials_objective(had, users, items)
    for _ in range(20):
        step = rng.normal(scale=0.01, size=items.shape)
        assert ials_objective(had, users, items + step) > least


@pytest.mark.parametrize("cells", [1, DIM**2 * 5])
def test_ials_does_not_depend_on_the_block_size(
    monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    had, model = matrix(3), ials()
    whole = fitted(model, had, 3)["item_vectors"]
    monkeypatch.setattr("fedrec_flower.models.ials._MAX_CELLS_PER_BLOCK", cells)
    assert_allclose(fitted(model, had, 3)["item_vectors"], whole, rtol=1e-6)


# --- impossible settings ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (lambda: EASE(1, 2, 0.0), "regularization"),
        (lambda: ItemKNN(1, 2, 0, 1.0), "num_neighbours"),
        (lambda: ItemKNN(1, 2, 1, -1.0), "shrinkage"),
        (lambda: IALS(1, 2, 0, ALPHA, LAMBDA, NU, 0.1), "embedding_dim"),
        (lambda: IALS(1, 2, DIM, 0.0, LAMBDA, NU, 0.1), "unobserved_weight"),
        (lambda: IALS(1, 2, DIM, ALPHA, 0.0, NU, 0.1), "regularization"),
        (lambda: IALS(1, 2, DIM, ALPHA, LAMBDA, NU, 0.0), "init_std"),
    ],
)
def test_closed_form_models_reject_impossible_settings_by_name(wrong: object, named: str) -> None:
    assert callable(wrong)
    with pytest.raises(ConfigError, match=rf"model\.{named} .*: -?\d"):
        wrong()

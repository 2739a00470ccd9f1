"""Scores of MF and NCF against numpy, and their initial values."""

from dataclasses import fields
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from fedrec_flower.models.abilities import BilinearForm, bilinear_form
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.mf import MF
from fedrec_flower.models.ncf import NCF

Variant = Literal["gmf", "mlp", "neumf"]
VARIANTS: list[Variant] = ["gmf", "mlp", "neumf"]
NUM_USERS, NUM_ITEMS, DIM = 4, 6, 3


def mf(task: str) -> MF:
    return MF(NUM_USERS, NUM_ITEMS, (1.0, 5.0), task, embedding_dim=DIM, init_std=0.1)


def ncf(variant: Variant, task: str = "ranking") -> NCF:
    return NCF(NUM_USERS, NUM_ITEMS, (1.0, 5.0), task, variant, DIM, [5, 2], init_std=0.1)


def drawn(model: Recommender) -> dict[str, NDArray[np.float64]]:
    """Fill every parameter with noise; returns the same values as arrays."""
    rng = np.random.default_rng(3)
    named = {name: tuple(value.shape) for name, value in model.named_parameters()}
    values = {name: rng.normal(size=shape).astype(np.float32) for name, shape in named.items()}
    model.load({name: value.copy() for name, value in values.items()})
    return {name: value.astype(np.float64) for name, value in values.items()}


def scores(model: Recommender) -> NDArray[Any]:
    with torch.no_grad():
        return model.score_all(torch.arange(NUM_USERS)).numpy()


def dense(values: dict[str, NDArray[np.float64]], name: str, x: Any) -> NDArray[Any]:
    result: NDArray[Any] = x @ values[f"{name}.weight"].T + values[f"{name}.bias"]
    return result


def test_mf_ranks_by_the_inner_product_and_the_item_bias() -> None:
    model = mf("ranking")
    v = drawn(model)
    expected = v["user_embedding.weight"] @ v["item_embedding.weight"].T + v["item_bias.weight"].T
    assert_allclose(scores(model), expected, rtol=1e-5, atol=1e-5)


def test_mf_rates_with_all_biases() -> None:
    model = mf("rating")
    v = drawn(model)
    expected = v["user_embedding.weight"] @ v["item_embedding.weight"].T
    expected += v["item_bias.weight"].T + v["user_bias.weight"] + v["global_bias"]
    assert_allclose(scores(model), expected, rtol=1e-5, atol=1e-5)


def test_ranking_mf_has_no_biases_that_preserve_the_order() -> None:
    assert {name for name, _ in mf("rating").named_parameters()} - {
        name for name, _ in mf("ranking").named_parameters()
    } == {"user_bias.weight", "global_bias"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_ncf_scores_equal_the_equations_of_he_et_al(variant: Variant) -> None:
    model = ncf(variant)
    v = drawn(model)
    user, item = v["user_embedding.weight"], v["item_embedding.weight"]
    expected = np.empty((NUM_USERS, NUM_ITEMS))
    for u in range(NUM_USERS):
        for i in range(NUM_ITEMS):
            features = []
            if variant != "mlp":
                features.append(user[u, :DIM] * item[i, :DIM])
            if variant != "gmf":
                pair = np.concatenate([user[u, -DIM:], item[i, -DIM:]])
                first = np.maximum(dense(v, "hidden.0", pair), 0)
                features.append(np.maximum(dense(v, "hidden.2", first), 0))
            score = dense(v, "output", np.concatenate(features))
            expected[u, i] = (score + v["item_bias.weight"][i]).item()
    assert_allclose(scores(model), expected, rtol=1e-5, atol=1e-5)


def test_bilinear_form_exists_only_without_hidden_layers() -> None:
    factors = {variant: ncf(variant).bilinear_form() for variant in VARIANTS}
    assert {variant for variant, found in factors.items() if found} == {"gmf"}
    assert mf("ranking").bilinear_form()


@pytest.mark.parametrize("model", [mf("ranking"), mf("rating"), ncf("gmf")])
def test_bilinear_form_names_the_parameters_of_the_score(model: Recommender) -> None:
    v, factors = drawn(model), bilinear_form(model)
    assert factors is not None
    weight = v.get(factors.weight, np.ones((1, DIM)))
    expected = (v[factors.user] * weight) @ v[factors.item].T
    for name in (factors.user_bias, factors.global_bias):
        expected = expected + v.get(name, np.zeros(1))
    expected = expected + v.get(factors.item_bias, np.zeros((1, 1))).T
    assert_allclose(scores(model), expected, rtol=1e-5, atol=1e-5)
    assert {name for name in vars_of(factors) if name} == set(v)


def vars_of(factors: BilinearForm) -> list[str]:
    return [getattr(factors, field.name) for field in fields(factors)]


def test_neumf_keeps_separate_vectors_for_product_and_hidden_layers() -> None:
    widths = {variant: ncf(variant).item_embedding.embedding_dim for variant in VARIANTS}
    assert widths == {"gmf": DIM, "mlp": DIM, "neumf": 2 * DIM}


def initial_values(model: Recommender) -> dict[str, NDArray[np.float32]]:
    names = [name for name, _ in model.named_parameters()]
    return model.initial(names, np.random.default_rng(0))


def test_gmf_starts_as_an_inner_product() -> None:
    model = ncf("gmf")
    values = initial_values(model)
    model.load(values)
    user, item = values["user_embedding.weight"], values["item_embedding.weight"]
    assert_allclose(scores(model), user @ item.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("model", [mf("rating"), *(ncf(variant, "rating") for variant in VARIANTS)])
def test_initial_scores_of_rating_models_are_near_the_middle_of_the_range(
    model: Recommender,
) -> None:
    model.load(initial_values(model))
    assert_allclose(scores(model), (1 + 5) / 2, atol=0.5)


@pytest.mark.parametrize("model", [mf("ranking"), *(ncf(variant) for variant in VARIANTS)])
def test_initial_scores_of_ranking_models_are_near_zero(model: Recommender) -> None:
    model.load(initial_values(model))
    assert_allclose(scores(model), 0, atol=0.5)


def test_initial_vectors_have_their_standard_deviation_and_biases_are_zero() -> None:
    model = MF(2000, 1000, None, "ranking", embedding_dim=8, init_std=0.25)
    values = initial_values(model)
    for name in ("user_embedding.weight", "item_embedding.weight"):
        assert values[name].std() == pytest.approx(0.25, rel=0.05)
        assert values[name].mean() == pytest.approx(0, abs=0.01)
    assert not values["item_bias.weight"].any()


def test_initial_hidden_weights_are_within_glorots_bound() -> None:
    model = NCF(2, 2, None, "ranking", "mlp", 32, [64, 16], init_std=0.1)
    values = initial_values(model)
    for name, (fan_out, fan_in) in {
        "hidden.0.weight": (64, 64),
        "hidden.2.weight": (16, 64),
    }.items():
        bound = np.sqrt(6 / (fan_in + fan_out))
        assert values[name].shape == (fan_out, fan_in)
        assert bound * 0.95 < np.abs(values[name]).max() <= bound
    assert not values["hidden.0.bias"].any()


def test_score_all_does_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    model = ncf("neumf")
    drawn(model)
    whole = scores(model)
    monkeypatch.setattr("fedrec_flower.models.ncf.MAX_PAIRS_PER_BATCH", 7)
    assert_allclose(scores(model), whole, rtol=1e-5)

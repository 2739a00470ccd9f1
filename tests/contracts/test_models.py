"""Laws of every model in conf/model, in addition to those of `check_model`."""

import inspect
from pathlib import Path

import numpy as np
import torch
from hydra.utils import get_class
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.models.abilities import SideInformation, bilinear_form
from tests.helpers.model_yamls import (
    ATTRIBUTES,
    EVERY_MODEL,
    EVERY_TRAINED_MODEL,
    EVERY_YAML,
    HISTORY,
    INJECTED,
    NUM_ITEMS,
    NUM_USERS,
    every_pair,
    history_only,
    initial,
    loaded,
    make,
    names_of,
    node,
    with_side_information,
)


@EVERY_YAML
def test_model_yaml_gives_every_argument_and_constructors_have_no_defaults(path: Path) -> None:
    config = node(path)
    arguments = inspect.signature(get_class(config["_target_"])).parameters
    assert config["name"] == path.stem
    assert set(config) - {"_target_", "name"} == set(arguments) - INJECTED
    assert all(argument.default is inspect.Parameter.empty for argument in arguments.values())


@EVERY_MODEL
def test_shared_and_personal_names_partition_the_parameters(path: Path, task: str) -> None:
    model = make(path, task)
    shared, personal = model.shared_names(), model.personal_names()
    assert sorted(shared + personal) == sorted(names_of(model))
    assert not set(shared) & set(personal)
    assert not set(shared) & (model.user_rows | model.personal)
    assert shared == [name for name in names_of(model) if name in set(shared)]


@EVERY_MODEL
def test_rows_of_a_drawn_table_have_different_initial_values(path: Path, task: str) -> None:
    model = make(path, task)
    values = initial(model, seed=0)
    for name in set(values) & (model.user_rows | model.item_rows):
        drawn = values[name]
        assert not drawn.any() or len(np.unique(drawn, axis=0)) == len(drawn)


@EVERY_MODEL
def test_side_information_is_in_buffers_with_a_row_per_user_or_item(path: Path, task: str) -> None:
    model = make(path, task)
    if not isinstance(model, SideInformation):
        assert not dict(model.named_buffers())
        return
    for_two_items = model.side_information(ATTRIBUTES, HISTORY, np.array([4, 1]))
    for_all_items = model.side_information(ATTRIBUTES, HISTORY, None)
    assert for_two_items.keys() == for_all_items.keys() == dict(model.named_buffers()).keys()
    for name, value in for_all_items.items():
        assert value.dtype == np.float32
        assert value.shape == model.get_buffer(name).shape
        assert_array_equal(for_two_items[name], value[[4, 1]] if name in model.item_rows else value)
        assert (name in model.user_rows) != (name in model.item_rows)


@EVERY_MODEL
def test_bilinear_form_reproduces_the_scores(path: Path, task: str) -> None:
    model = loaded(path, task)
    form, v = bilinear_form(model), initial(model, seed=0)
    if form is None:
        return
    scores = (v[form.user] * v.get(form.weight, np.float32(1))) @ v[form.item].T
    scores = scores + v.get(form.user_bias, np.float32(0)) + v.get(form.global_bias, 0)
    scores = scores + v.get(form.item_bias, np.zeros((1, 1))).T
    assert_allclose(every_pair(model).detach(), scores, rtol=1e-5, atol=1e-6)


@EVERY_TRAINED_MODEL
def test_every_trained_parameter_and_row_has_a_gradient(path: Path, task: str) -> None:
    model = loaded(path, task)
    slope = torch.from_numpy(np.random.default_rng(1).normal(size=(NUM_USERS, NUM_ITEMS)))
    torch.autograd.backward((every_pair(model, noisy=True) * slope).sum())
    for name, value in model.named_parameters():
        if name in model.frozen:
            continue  # a frozen factor may be multiplied by zero
        assert value.grad is not None, name
        assert value.grad.any(), name
        if name in model.user_rows | model.item_rows:
            has_gradient = value.grad.flatten(1).any(1)
            used = HISTORY.item if name in history_only(model) else slice(None)
            assert has_gradient[used].all(), f"{name}: some row has no gradient"


@EVERY_TRAINED_MODEL
def test_a_sub_model_scores_its_pairs_as_the_full_model(path: Path, task: str) -> None:
    model = make(path, task)
    values = with_side_information(model, seed=0)
    model.load({name: value.copy() for name, value in values.items()})
    whole = model.score_all(torch.arange(NUM_USERS)).detach()
    rows = np.array([1, 4, 5])
    part = {name: v[rows] if name in model.item_rows else v for name, v in values.items()}
    model.load(part)
    assert_allclose(every_pair(model, len(rows)).detach(), whole[:, rows], rtol=1e-5, atol=1e-6)
    scores = model.score_all(torch.arange(NUM_USERS)).detach()
    assert_allclose(scores, whole[:, rows], rtol=1e-5, atol=1e-6)


@EVERY_TRAINED_MODEL
def test_a_single_users_tables_score_as_its_rows_of_all_users(path: Path, task: str) -> None:
    model = make(path, task)
    values = with_side_information(model, seed=0)
    model.load({name: value.copy() for name, value in values.items()})
    whole = model.score_all(torch.arange(NUM_USERS)).detach()
    model.load(
        {name: v[1:2].copy() if name in model.user_rows else v for name, v in values.items()}
    )
    assert_allclose(model.score_all(torch.tensor([0])).detach(), whole[1:2], rtol=1e-5, atol=1e-6)


@EVERY_TRAINED_MODEL
def test_training_changes_the_loaded_arrays_in_place(path: Path, task: str) -> None:
    model = make(path, task)
    values = initial(model, seed=0)
    before = {name: value.copy() for name, value in values.items()}
    model.load(values)
    torch.autograd.backward(every_pair(model).sum())
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert any(not np.array_equal(values[name], before[name]) for name in values)

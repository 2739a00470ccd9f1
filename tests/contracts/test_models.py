"""What every model named by a yaml must do; a new one is found here with no edit."""

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
    begun,
    every_pair,
    initial,
    known,
    make,
    names_of,
    node,
    only_read,
    tasks,
)


@EVERY_YAML
def test_the_yaml_gives_every_argument_and_is_the_only_home_of_defaults(path: Path) -> None:
    given = node(path)
    arguments = inspect.signature(get_class(given["_target_"])).parameters
    assert given["name"] == path.stem
    assert set(given) - {"_target_", "name"} == set(arguments) - INJECTED
    assert all(argument.default is inspect.Parameter.empty for argument in arguments.values())


@EVERY_MODEL
def test_score_all_equals_forward_on_all_pairs(path: Path, task: str) -> None:
    model = begun(path, task)
    scores = model.score_all(torch.arange(NUM_USERS))
    assert scores.shape == (NUM_USERS, NUM_ITEMS)
    assert scores.dtype == torch.float32
    assert_allclose(scores.detach(), every_pair(model).detach(), rtol=1e-5, atol=1e-6)


@EVERY_MODEL
def test_score_all_gives_the_asked_users_in_the_order_asked(path: Path, task: str) -> None:
    model = begun(path, task)
    every = model.score_all(torch.arange(NUM_USERS)).detach()
    some = model.score_all(torch.tensor([2, 0])).detach()
    assert_allclose(some, every[[2, 0]], rtol=1e-5, atol=1e-6)


@EVERY_MODEL
def test_tables_are_exactly_the_parameters_that_grow_with_users_or_items(
    path: Path, task: str
) -> None:
    def shapes(num_users: int, num_items: int) -> dict[str, tuple[int, ...]]:
        model = make(path, task, num_users, num_items)
        return {name: tuple(value.shape) for name, value in model.named_parameters()}

    small, more_users, more_items = shapes(3, 7), shapes(4, 7), shapes(3, 8)
    model = make(path, task)
    for name, (rows, *rest) in small.items():
        user, item = name in model.user_rows, name in model.item_rows
        assert more_users[name] == (rows + user, *rest)
        # A matrix of items by items grows both ways.
        assert more_items[name] == (rows + item, *(n + (item and n == NUM_ITEMS) for n in rest))
        assert rows == (NUM_USERS if user else rows)
        assert rows == (NUM_ITEMS if item else rows)


@EVERY_YAML
def test_every_named_table_exists_for_some_task(path: Path) -> None:
    models = [make(path, task) for task in tasks(path)]
    named = models[0].user_rows | models[0].item_rows | models[0].personal
    assert named <= {name for model in models for name in model.state_dict()}


@EVERY_MODEL
def test_shared_and_personal_names_partition_the_parameters(path: Path, task: str) -> None:
    model = make(path, task)
    shared, personal = model.shared_names(), model.personal_names()
    assert sorted(shared + personal) == sorted(names_of(model))
    assert not set(shared) & set(personal)
    assert not set(shared) & (model.user_rows | model.personal)
    assert shared == [name for name in names_of(model) if name in set(shared)]


@EVERY_MODEL
def test_initial_values_are_seeded_finite_and_of_the_right_shape(path: Path, task: str) -> None:
    model = make(path, task)
    one, again = (initial(model, seed) for seed in (1, 1))
    for name, value in model.named_parameters():
        assert one[name].shape == tuple(value.shape)
        assert one[name].dtype == np.float32
        assert np.isfinite(one[name]).all()
        assert_array_equal(one[name], again[name])


@EVERY_MODEL
def test_no_two_rows_of_a_drawn_table_begin_alike(path: Path, task: str) -> None:
    model = make(path, task)
    values = initial(model, seed=0)
    for name in set(values) & (model.user_rows | model.item_rows):
        drawn = values[name]
        assert not drawn.any() or len(np.unique(drawn, axis=0)) == len(drawn)


@EVERY_MODEL
def test_features_are_buffers_with_a_row_per_user_or_item(path: Path, task: str) -> None:
    model = make(path, task)
    if not isinstance(model, SideInformation):
        assert not dict(model.named_buffers())
        return
    some = model.side_information(ATTRIBUTES, HISTORY, np.array([4, 1]))
    every = model.side_information(ATTRIBUTES, HISTORY, None)
    assert some.keys() == every.keys() == dict(model.named_buffers()).keys()
    for name, value in every.items():
        assert value.dtype == np.float32
        assert value.shape == model.get_buffer(name).shape
        assert_array_equal(some[name], value[[4, 1]] if name in model.item_rows else value)
        assert (name in model.user_rows) != (name in model.item_rows)


@EVERY_MODEL
def test_a_model_that_says_it_is_factors_scores_by_their_product(path: Path, task: str) -> None:
    model = begun(path, task)
    factors, v = bilinear_form(model), initial(model, seed=0)
    if factors is None:
        return
    scores = (v[factors.user] * v.get(factors.weight, np.float32(1))) @ v[factors.item].T
    scores = scores + v.get(factors.user_bias, np.float32(0)) + v.get(factors.global_bias, 0)
    scores = scores + v.get(factors.item_bias, np.zeros((1, 1))).T
    assert_allclose(every_pair(model).detach(), scores, rtol=1e-5, atol=1e-6)


@EVERY_TRAINED_MODEL
def test_gradients_reach_every_parameter(path: Path, task: str) -> None:
    model = begun(path, task)
    pull = torch.from_numpy(np.random.default_rng(1).normal(size=(NUM_USERS, NUM_ITEMS)))
    torch.autograd.backward((every_pair(model, noisy=True) * pull).sum())
    for name, value in model.named_parameters():
        if name in model.frozen:
            continue  # what is never trained may stand before a zero
        assert value.grad is not None, name
        assert value.grad.any(), name
        if name in model.user_rows | model.item_rows:
            learns = value.grad.flatten(1).any(1)
            used = HISTORY.item if name in only_read(model) else slice(None)
            assert learns[used].all(), f"{name}: some row learns nothing"


@EVERY_TRAINED_MODEL
def test_a_sub_model_of_rows_scores_its_pairs_as_the_whole_does(path: Path, task: str) -> None:
    model = make(path, task)
    values = known(model, seed=0)
    model.load({name: value.copy() for name, value in values.items()})
    whole = model.score_all(torch.arange(NUM_USERS)).detach()
    rows = np.array([1, 4, 5])
    part = {name: v[rows] if name in model.item_rows else v for name, v in values.items()}
    model.load(part)
    assert_allclose(every_pair(model, len(rows)).detach(), whole[:, rows], rtol=1e-5, atol=1e-6)
    scores = model.score_all(torch.arange(NUM_USERS)).detach()
    assert_allclose(scores, whole[:, rows], rtol=1e-5, atol=1e-6)


@EVERY_TRAINED_MODEL
def test_one_users_tables_score_as_its_rows_of_the_whole_do(path: Path, task: str) -> None:
    model = make(path, task)
    values = known(model, seed=0)
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

"""What every model named by a yaml must do; a new one is found here with no edit."""

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fedrec_flower.config import build
from fedrec_flower.errors import ConfigError
from fedrec_flower.models import ExactRecommender, Recommender
from fedrec_flower.models.entries import take
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.prepared import Columns

CONF = Path(__file__).parents[2] / "conf" / "model"
YAMLS = sorted(CONF.glob("*.yaml"))
INJECTED = {"num_users", "num_items", "rating_range", "task", "item_features", "num_attributes"}
NUM_USERS, NUM_ITEMS = 3, 7
# What three users had; the middle one has nothing to show.
HISTORY = Columns(np.array([0, 4, 4, 7]), np.array([0, 2, 3, 6, 2, 5, 6], np.int32), None)
ATTRIBUTES = np.random.default_rng(2).normal(size=(NUM_USERS, 4)).astype(np.float32)


def node(path: Path) -> dict[str, Any]:
    """The yaml's `model` group."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    chosen: dict[str, Any] = content["model"]
    return chosen


def is_exact(path: Path) -> bool:
    """Whether the model is solved from sums; all others are trained by gradients."""
    return issubclass(get_class(node(path)["_target_"]), ExactRecommender)


def reads(path: Path) -> bool:
    """Whether the model is trained to score from a history."""
    return issubclass(get_class(node(path)["_target_"]), HistoryRecommender)


def make(
    path: Path, task: str, num_users: int = NUM_USERS, num_items: int = NUM_ITEMS
) -> Recommender:
    facts = {
        "num_users": num_users,
        "num_items": num_items,
        "item_features": np.random.default_rng(3).normal(size=(num_items, 5)).astype(np.float32),
        "num_attributes": ATTRIBUTES.shape[1],
    }
    model: Recommender = build("model", node(path), task=task, rating_range=(1.0, 5.0), **facts)
    return model


def tasks(path: Path) -> tuple[str, ...]:
    """What the model can do: whoever is solved from sums ranks; others refuse to rate."""
    if is_exact(path):
        return ("ranking",)
    try:
        make(path, "rating")
    except ConfigError:
        return ("ranking",)
    return ("ranking", "rating")


PAIRS = [pytest.param(p, task, id=f"{p.stem}-{task}") for p in YAMLS for task in tasks(p)]
EVERY_YAML = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
EVERY_MODEL = pytest.mark.parametrize(("path", "task"), PAIRS)
EVERY_TRAINED_MODEL = pytest.mark.parametrize(
    ("path", "task"), [pair for pair in PAIRS if not is_exact(Path(str(pair.values[0])))]
)
EVERY_EXACT_YAML = pytest.mark.parametrize(
    "path", [path for path in YAMLS if is_exact(path)], ids=lambda path: path.stem
)
EVERY_READER = pytest.mark.parametrize(
    ("path", "task"), [pair for pair in PAIRS if reads(Path(str(pair.values[0])))]
)
EVERY_HISTORY_MODEL = pytest.mark.parametrize(
    ("path", "task"),
    [p for p in PAIRS if is_exact(Path(str(p.values[0]))) or reads(Path(str(p.values[0])))],
)


def begun(path: Path, task: str) -> Recommender:
    """A model with its initial values; one that is solved knows the history."""
    model = make(path, task)
    values = known(model, seed=0)
    if isinstance(model, ExactRecommender):
        values |= solved(model, HISTORY)
    model.load(values)
    model.observe(HISTORY)
    return model


def solved(model: ExactRecommender, history: Columns) -> dict[str, NDArray[np.float32]]:
    """The shared parameters after one round."""
    values = initial(model, seed=0)
    shared = {name: values[name] for name in model.shared_names()}
    return model.solve_alone(history, shared, num_rounds=1)


def only_read(model: Recommender) -> frozenset[str]:
    """The item tables that are looked up for the items of a history and for no others."""
    if not isinstance(model, HistoryRecommender):
        return frozenset()
    return model.history_rows - model.scored_rows


def names_of(model: Recommender) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def initial(model: Recommender, seed: int) -> dict[str, NDArray[np.float32]]:
    return model.initial(names_of(model), np.random.default_rng(seed))


def known(model: Recommender, seed: int) -> dict[str, NDArray[np.float32]]:
    """Initial values, and what is known of users and items."""
    return initial(model, seed) | model.features(ATTRIBUTES, HISTORY, None)


def every_pair(
    model: Recommender, num_items: int = NUM_ITEMS, *, noisy: bool = False
) -> torch.Tensor:
    """The scores (NUM_USERS, num_items) of `forward`, pair by pair; `noisy`: as in training."""
    users = torch.arange(NUM_USERS).repeat_interleave(num_items)
    read: tuple[History, ...] = ()
    if noisy and isinstance(model, HistoryRecommender) and model.noise_dim:
        noise = torch.ones(NUM_USERS, model.noise_dim)
        read = (replace(model.whole(HISTORY, num_items), noise=noise),)
    scores: torch.Tensor = model(users, torch.arange(num_items).repeat(NUM_USERS), *read)
    return scores.view(NUM_USERS, num_items)


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
    some = model.features(ATTRIBUTES, HISTORY, np.array([4, 1]))
    every = model.features(ATTRIBUTES, HISTORY, None)
    assert some.keys() == every.keys() == dict(model.named_buffers()).keys()
    for name, value in every.items():
        assert value.dtype == np.float32
        assert value.shape == model.get_buffer(name).shape
        assert_array_equal(some[name], value[[4, 1]] if name in model.item_rows else value)
        assert (name in model.user_rows) != (name in model.item_rows)


@EVERY_MODEL
def test_a_model_that_says_it_is_factors_scores_by_their_product(path: Path, task: str) -> None:
    model = begun(path, task)
    factors, v = model.factors(), initial(model, seed=0)
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


# --- models that are solved from sums ---------------------------------------------------------


def exact(path: Path, num_users: int = NUM_USERS) -> ExactRecommender:
    model = make(path, "ranking", num_users)
    assert isinstance(model, ExactRecommender)
    return model


@EVERY_EXACT_YAML
def test_statistics_bear_the_promised_names_and_their_shapes_depend_on_no_user(path: Path) -> None:
    model = exact(path)
    few, many = (model.statistics(h, initial(model, 0)) for h in (HISTORY.slice(0, 1), HISTORY))
    assert tuple(few) == tuple(many) == model.statistic_names
    for name, value in few.items():
        assert value.dtype == np.float64
        assert value.shape == many[name].shape


@EVERY_EXACT_YAML
@pytest.mark.parametrize("cut", range(NUM_USERS + 1))
def test_the_statistics_of_users_are_the_sum_of_those_of_their_parts(path: Path, cut: int) -> None:
    model = exact(path)
    parameters = initial(model, seed=0)
    whole = model.statistics(HISTORY, parameters)
    parts = (HISTORY.slice(0, cut), HISTORY.slice(cut, NUM_USERS))
    one, other = (model.statistics(part, parameters) for part in parts)
    for name, value in whole.items():
        assert_allclose(one[name] + other[name], value, rtol=1e-12, atol=1e-12)


@EVERY_EXACT_YAML
def test_a_solution_takes_the_shared_parameters_place(path: Path) -> None:
    model = exact(path)
    for history in (HISTORY, HISTORY.slice(1, 2)):  # something, nothing
        found = solved(model, history)
        assert sorted(found) == sorted(model.shared_names())
        for name, value in found.items():
            assert value.shape == tuple(model.get_parameter(name).shape)
            assert value.dtype == np.float32
            assert np.isfinite(value).all()


# --- models that score from histories ---------------------------------------------------------


@EVERY_HISTORY_MODEL
def test_a_users_scores_depend_on_no_other_loaded_user(path: Path, task: str) -> None:
    model = begun(path, task)
    together = model.score_all(torch.arange(NUM_USERS)).detach()
    values = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for user in range(NUM_USERS):
        rows = {n: v[[user]] if n in model.user_rows else v for n, v in values.items()}
        model.load(rows)
        model.observe(HISTORY.slice(user, user + 1))
        alone = model.score_all(torch.tensor([0])).detach()
        assert_allclose(alone, together[[user]], rtol=1e-5, atol=1e-6)


@EVERY_HISTORY_MODEL
def test_without_a_history_scores_are_finite(path: Path, task: str) -> None:
    model = make(path, task)
    model.load(initial(model, seed=0))
    scores = model.score_all(torch.arange(NUM_USERS)).detach()
    assert scores.shape == (NUM_USERS, NUM_ITEMS)
    assert torch.isfinite(scores).all()


def reader(path: Path, task: str) -> HistoryRecommender:
    model = begun(path, task)
    assert isinstance(model, HistoryRecommender)
    return model


@EVERY_READER
def test_item_tables_are_looked_up_for_histories_or_for_scores(path: Path, task: str) -> None:
    model = reader(path, task)
    assert model.item_rows == model.history_rows | model.scored_rows
    assert model.history_rows


@EVERY_READER
def test_the_history_moves_the_scores_of_who_has_one(path: Path, task: str) -> None:
    model = reader(path, task)
    known = model.score_all(torch.arange(NUM_USERS)).detach()
    model.observe(take(HISTORY, np.array([1, 1, 1]), None))
    unknown = model.score_all(torch.arange(NUM_USERS)).detach()
    assert [bool((a != b).any()) for a, b in zip(known, unknown, strict=True)] == [
        True,
        False,
        True,
    ]


@EVERY_READER
def test_what_is_dropped_from_a_history_moves_no_score(path: Path, task: str) -> None:
    model = reader(path, task)
    whole = model.whole(HISTORY, NUM_ITEMS)
    dropped = replace(whole, weight=torch.zeros_like(whole.weight))
    other = replace(dropped, item=(whole.item + 1) % NUM_ITEMS, target=whole.target + 1)
    users, items = torch.tensor([0, 2, 2]), torch.tensor([1, 1, 5])
    scores = [model(users, items, history) for history in (dropped, other, whole)]
    assert_array_equal(scores[0].detach(), scores[1].detach())
    assert (scores[0] != scores[2]).any()


@EVERY_READER
def test_a_sub_model_with_the_rows_of_a_history_scores_as_the_whole_does(
    path: Path, task: str
) -> None:
    model = reader(path, task)
    expected = every_pair(model).detach()
    values = {name: value.detach().numpy() for name, value in model.named_parameters()}
    whole = model.whole(HISTORY, NUM_ITEMS)
    rows = np.unique([*whole.item.tolist(), 4])  # one more than is read
    model.load({name: v[rows] if name in model.item_rows else v for name, v in values.items()})
    place = torch.from_numpy(np.searchsorted(rows, whole.item.numpy()))
    users = torch.arange(NUM_USERS).repeat_interleave(len(rows))
    items = torch.arange(len(rows)).repeat(NUM_USERS)
    scores = model(users, items, replace(whole, item=place)).detach().view(NUM_USERS, -1)
    assert_allclose(scores, expected[:, rows], rtol=1e-5, atol=1e-6)


@EVERY_READER
def test_how_many_histories_are_read_at_once_does_not_matter(
    path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = reader(path, task)
    whole = model.score_all(torch.arange(NUM_USERS)).detach()
    monkeypatch.setattr("fedrec_flower.models.history.ENTRIES_AT_ONCE", 5)
    assert_allclose(model.score_all(torch.arange(NUM_USERS)).detach(), whole, rtol=1e-5, atol=1e-6)

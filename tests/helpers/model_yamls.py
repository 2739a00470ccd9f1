"""Small instances of every model in conf/model; a new yaml needs no edit here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import get_class
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.abilities import HistoryBased, SideInformation
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.models.history import History, HistoryRecommender

CONF = Path(__file__).parents[2] / "conf" / "model"
YAMLS = sorted(CONF.glob("*.yaml"))
INJECTED = {"num_users", "num_items", "rating_range", "task", "item_features", "num_attributes"}
NUM_USERS, NUM_ITEMS = 3, 7
# Histories of three users; the middle one has no items.
HISTORY = Columns(np.array([0, 4, 4, 7]), np.array([0, 2, 3, 6, 2, 5, 6], np.int32), None)
ATTRIBUTES = np.random.default_rng(2).normal(size=(NUM_USERS, 4)).astype(np.float32)


def node(path: Path) -> dict[str, Any]:
    """The yaml's `model` group."""
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    chosen: dict[str, Any] = content["model"]
    return chosen


def is_closed_form(path: Path) -> bool:
    """Whether the model has a closed form; all others are trained by gradients."""
    return issubclass(get_class(node(path)["_target_"]), ClosedFormRecommender)


def encodes_histories(path: Path) -> bool:
    """Whether the model is a `HistoryRecommender`."""
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
    """The tasks of the model: closed-form models rank, and some others cannot predict ratings."""
    if is_closed_form(path):
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
    ("path", "task"), [pair for pair in PAIRS if not is_closed_form(Path(str(pair.values[0])))]
)
EVERY_CLOSED_FORM_YAML = pytest.mark.parametrize(
    "path", [path for path in YAMLS if is_closed_form(path)], ids=lambda path: path.stem
)
EVERY_HISTORY_RECOMMENDER = pytest.mark.parametrize(
    ("path", "task"), [pair for pair in PAIRS if encodes_histories(Path(str(pair.values[0])))]
)
EVERY_HISTORY_MODEL = pytest.mark.parametrize(
    ("path", "task"),
    [
        p
        for p in PAIRS
        if is_closed_form(Path(str(p.values[0]))) or encodes_histories(Path(str(p.values[0])))
    ],
)


def loaded(path: Path, task: str) -> Recommender:
    """A model with initial values and histories; a closed-form model is solved."""
    model = make(path, task)
    values = with_side_information(model, seed=0)
    if isinstance(model, ClosedFormRecommender):
        values |= solved(model, HISTORY)
    model.load(values)
    if isinstance(model, HistoryBased):
        model.set_history(HISTORY)
    return model


def solved(model: ClosedFormRecommender, history: Columns) -> dict[str, NDArray[np.float32]]:
    """The shared parameters after one round."""
    values = initial(model, seed=0)
    shared = {name: values[name] for name in model.shared_names()}
    return model.solve_alone(history, shared, num_rounds=1)


def history_only(model: Recommender) -> frozenset[str]:
    """The item tables that are looked up for the items of histories alone."""
    if not isinstance(model, HistoryRecommender):
        return frozenset()
    return model.history_only


def names_of(model: Recommender) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def initial(model: Recommender, seed: int) -> dict[str, NDArray[np.float32]]:
    return model.initial(names_of(model), np.random.default_rng(seed))


def with_side_information(model: Recommender, seed: int) -> dict[str, NDArray[np.float32]]:
    """Initial values, and the side information on users and items."""
    values = initial(model, seed)
    if isinstance(model, SideInformation):
        values |= model.side_information(ATTRIBUTES, HISTORY, None)
    return values


def every_pair(
    model: Recommender, num_items: int = NUM_ITEMS, *, noisy: bool = False
) -> torch.Tensor:
    """The scores (NUM_USERS, num_items) of `forward`, pair by pair; `noisy`: as in training."""
    users = torch.arange(NUM_USERS).repeat_interleave(num_items)
    read: tuple[History, ...] = ()
    if noisy and isinstance(model, HistoryRecommender) and model.noise_dim:
        noise = torch.ones(NUM_USERS, model.noise_dim)
        read = (replace(model.full_history(HISTORY, num_items), noise=noise),)
    scores: torch.Tensor = model(users, torch.arange(num_items).repeat(NUM_USERS), *read)
    return scores.view(NUM_USERS, num_items)

"""What every model that scores from histories must do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.models.abilities import HistoryBased
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.models.ops.history_entries import take
from tests.helpers.model_yamls import (
    EVERY_HISTORY_MODEL,
    EVERY_READER,
    HISTORY,
    NUM_ITEMS,
    NUM_USERS,
    begun,
    every_pair,
    initial,
    make,
)


@EVERY_HISTORY_MODEL
def test_a_users_scores_depend_on_no_other_loaded_user(path: Path, task: str) -> None:
    model = begun(path, task)
    together = model.score_all(torch.arange(NUM_USERS)).detach()
    values = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for user in range(NUM_USERS):
        rows = {n: v[[user]] if n in model.user_rows else v for n, v in values.items()}
        model.load(rows)
        assert isinstance(model, HistoryBased)
        model.set_history(HISTORY.slice(user, user + 1))
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
def test_the_history_moves_the_scores_of_who_has_one(path: Path, task: str) -> None:
    model = reader(path, task)
    known = model.score_all(torch.arange(NUM_USERS)).detach()
    model.set_history(take(HISTORY, np.array([1, 1, 1]), None))
    unknown = model.score_all(torch.arange(NUM_USERS)).detach()
    assert [bool((a != b).any()) for a, b in zip(known, unknown, strict=True)] == [
        True,
        False,
        True,
    ]


@EVERY_READER
def test_what_is_dropped_from_a_history_moves_no_score(path: Path, task: str) -> None:
    model = reader(path, task)
    whole = model.full_history(HISTORY, NUM_ITEMS)
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
    whole = model.full_history(HISTORY, NUM_ITEMS)
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
    monkeypatch.setattr("fedrec_flower.models.history.MAX_ENTRIES_PER_BATCH", 5)
    assert_allclose(model.score_all(torch.arange(NUM_USERS)).detach(), whole, rtol=1e-5, atol=1e-6)

"""Laws of every model that scores from histories."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.models.abilities import HistoryBased
from fedrec_flower.models.history import HistoryRecommender
from tests.helpers.model_yamls import (
    EVERY_HISTORY_MODEL,
    EVERY_HISTORY_RECOMMENDER,
    HISTORY,
    NUM_ITEMS,
    NUM_USERS,
    every_pair,
    initial,
    loaded,
    make,
)


@EVERY_HISTORY_MODEL
def test_scores_of_a_user_do_not_depend_on_other_loaded_users(path: Path, task: str) -> None:
    model = loaded(path, task)
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


def history_recommender(path: Path, task: str) -> HistoryRecommender:
    model = loaded(path, task)
    assert isinstance(model, HistoryRecommender)
    return model


@EVERY_HISTORY_RECOMMENDER
def test_the_history_changes_the_scores_of_users_who_have_one(path: Path, task: str) -> None:
    model = history_recommender(path, task)
    with_history = model.score_all(torch.arange(NUM_USERS)).detach()
    model.set_history(HISTORY.take(np.array([1, 1, 1])))
    without_history = model.score_all(torch.arange(NUM_USERS)).detach()
    assert [bool((a != b).any()) for a, b in zip(with_history, without_history, strict=True)] == [
        True,
        False,
        True,
    ]


@EVERY_HISTORY_RECOMMENDER
def test_dropped_entries_do_not_change_scores(path: Path, task: str) -> None:
    model = history_recommender(path, task)
    whole = model.full_history(HISTORY, NUM_ITEMS)
    dropped = replace(whole, weight=torch.zeros_like(whole.weight))
    other = replace(dropped, item=(whole.item + 1) % NUM_ITEMS, target=whole.target + 1)
    users, items = torch.tensor([0, 2, 2]), torch.tensor([1, 1, 5])
    scores = [model(users, items, history) for history in (dropped, other, whole)]
    assert_array_equal(scores[0].detach(), scores[1].detach())
    assert (scores[0] != scores[2]).any()


@EVERY_HISTORY_RECOMMENDER
def test_a_sub_model_with_the_rows_of_a_history_scores_as_the_full_model(
    path: Path, task: str
) -> None:
    model = history_recommender(path, task)
    expected = every_pair(model).detach()
    values = {name: value.detach().numpy() for name, value in model.named_parameters()}
    whole = model.full_history(HISTORY, NUM_ITEMS)
    rows = np.unique([*whole.item.tolist(), 4])  # and one row that is not in a history
    model.load({name: v[rows] if name in model.item_rows else v for name, v in values.items()})
    place = torch.from_numpy(np.searchsorted(rows, whole.item.numpy()))
    users = torch.arange(NUM_USERS).repeat_interleave(len(rows))
    items = torch.arange(len(rows)).repeat(NUM_USERS)
    scores = model(users, items, replace(whole, item=place)).detach().view(NUM_USERS, -1)
    assert_allclose(scores, expected[:, rows], rtol=1e-5, atol=1e-6)


@EVERY_HISTORY_RECOMMENDER
def test_scores_do_not_depend_on_the_size_of_batches_of_histories(
    path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = history_recommender(path, task)
    whole = model.score_all(torch.arange(NUM_USERS)).detach()
    monkeypatch.setattr("fedrec_flower.models.history.MAX_ENTRIES_PER_BATCH", 5)
    assert_allclose(model.score_all(torch.arange(NUM_USERS)).detach(), whole, rtol=1e-5, atol=1e-6)

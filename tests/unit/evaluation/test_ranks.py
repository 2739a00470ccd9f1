"""Ranks by counting against a naive loop; the recommended lists against a plain sort."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedrec_flower.evaluation.scoring import rank_held_out, recommend

NUM_OTHERS = 6


@st.composite
def users(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]]]:
    """Scores of held-out items and of others, a list per user; few values, so many ties."""
    few = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    num_users = draw(st.integers(1, 4))
    held = [draw(st.lists(few, max_size=4)) for _ in range(num_users)]
    some = st.one_of(few, st.just(-np.inf))
    others = st.lists(some, min_size=NUM_OTHERS, max_size=NUM_OTHERS)
    return held, [draw(others) for _ in range(num_users)]


def naive_ranks(held: list[float], others: list[float]) -> list[int]:
    """Place items one by one: the best held-out item first, every tied other above it."""
    placed = [0] * len(held)
    for count, index in enumerate(sorted(range(len(held)), key=lambda i: -held[i]), start=1):
        above = 0
        for other in others:
            above += other >= held[index]
        placed[index] = above + count
    return placed


def ranked(
    held: list[list[float]], others: list[list[float]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    flat = np.array([score for scores in held for score in scores], np.float32)
    user = np.repeat(np.arange(len(held)), [len(scores) for scores in held])
    return user, rank_held_out(flat, user, np.array(others, np.float32))


@given(users())
def test_rank_held_out_equals_a_naive_loop(
    drawn: tuple[list[list[float]], list[list[float]]],
) -> None:
    held, others = drawn
    user, rank = ranked(held, others)
    for code, (scores, rest) in enumerate(zip(held, others, strict=True)):
        assert sorted(rank[user == code]) == sorted(naive_ranks(scores, rest))


@given(users())
def test_rank_held_out_is_monotonic_and_has_no_equal_ranks(
    drawn: tuple[list[list[float]], list[list[float]]],
) -> None:
    held, others = drawn
    user, rank = ranked(held, others)
    flat = np.array([score for scores in held for score in scores])
    for code in range(len(held)):
        own = rank[user == code]
        assert len(set(own.tolist())) == len(own)
        for one, first in zip(own, flat[user == code], strict=True):
            for other, second in zip(own, flat[user == code], strict=True):
                assert first <= second or one < other


def test_rank_held_out_is_independent_of_the_batch_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    held, others = rng.integers(0, 9, (40, 3)), rng.integers(0, 9, (40, NUM_OTHERS))
    _, whole = ranked(held.tolist(), others.tolist())
    monkeypatch.setattr("fedrec_flower.evaluation.scoring._COMPARISONS_PER_BATCH", 2 * NUM_OTHERS)
    _, chunked = ranked(held.tolist(), others.tolist())
    assert chunked.tolist() == whole.tolist()


def test_rank_held_out_counts_ties_against_the_model() -> None:
    _, rank = ranked([[1.0], [1.0], [1.0]], [[1.0, 0.0], [0.0, 0.5], [2.0, 1.0]])
    assert rank.tolist() == [2, 1, 3]


def test_rank_held_out_of_constant_scores_is_last() -> None:
    _, rank = ranked([[0.0]], [[0.0] * NUM_OTHERS])
    assert rank.tolist() == [NUM_OTHERS + 1]


def test_rank_held_out_ignores_items_that_are_not_candidates() -> None:
    _, rank = ranked([[-5.0]], [[-np.inf] * NUM_OTHERS])
    assert rank.tolist() == [1]


SCORES = arrays(
    np.float32, (3, 7), elements=st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 3.0]).map(np.float32)
)


@given(SCORES, st.integers(1, 7))
def test_recommend_returns_the_best_items_in_order(scores: NDArray[np.float32], k: int) -> None:
    records = recommend(scores, k)
    item, score = records["per_user_recommended"], records["per_user_score"]
    for user, row in enumerate(scores):
        best = sorted(range(7), key=lambda i: (-row[i], i))[:k]
        assert score[user].tolist() == [row[i] for i in best]
        assert row[item[user]].tolist() == score[user].tolist()
        assert len(set(item[user].tolist())) == k


def test_recommend_puts_the_lower_code_first_in_a_tie() -> None:
    scores = np.array([[1.0, 5.0, 1.0, 5.0]], np.float32)
    assert recommend(scores, 4)["per_user_recommended"].tolist() == [[1, 3, 0, 2]]

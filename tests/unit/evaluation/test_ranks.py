"""Ranks by counting against a naive loop; the recommended lists against a plain sort."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedrec_flower.data.prepared import Columns, starts
from fedrec_flower.evaluation.scoring import rank_among, rank_held_out, recommend

MAX_HELD, NUM_OTHERS = 4, 6
Users = tuple[list[list[float]], list[list[float | None]]]
"""Per user the scores of held-out items, and of others; None for others that are no candidates."""
Rank = Callable[..., tuple[NDArray[np.int64], NDArray[np.int64]]]


@st.composite
def users(draw: st.DrawFn) -> Users:
    """Users with few different scores, so many ties."""
    few = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    num_users = draw(st.integers(1, 4))
    held = [draw(st.lists(few, max_size=MAX_HELD)) for _ in range(num_users)]
    others = st.lists(st.one_of(few, st.none()), min_size=NUM_OTHERS, max_size=NUM_OTHERS)
    return held, [draw(others) for _ in range(num_users)]


def columns(items: Sequence[Sequence[int]]) -> Columns:
    flat = np.array([item for own in items for item in own], np.int32)
    return Columns(starts([len(own) for own in items]), flat, None)


def in_catalogue(
    held: Sequence[Sequence[float]], others: Sequence[Sequence[float | None]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank among all items; items that are no candidates are seen, with the best scores."""
    first = max(map(len, held))  # held-out items come first in the catalogue, then the others
    scores = np.full((len(held), first + len(others[0])), 9, np.float32)
    for user, (own, rest) in enumerate(zip(held, others, strict=True)):
        scores[user, : len(own)] = own
        scores[user, first:] = [9 if score is None else score for score in rest]
    seen = [
        [*range(len(own), first), *(first + i for i, s in enumerate(rest) if s is None)]
        for own, rest in zip(held, others, strict=True)
    ]
    halves = [columns([items[half::2] for items in seen]) for half in range(2)]
    held_out = columns([range(len(own)) for own in held])
    return held_out.users(), rank_held_out(scores, held_out, halves)


def in_sample(
    held: Sequence[Sequence[float]], others: Sequence[Sequence[float | None]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank among negatives; items that are no candidates have the worst score."""
    scores = np.full((len(held), MAX_HELD + len(others[0])), 9, np.float32)
    for user, (own, rest) in enumerate(zip(held, others, strict=True)):
        scores[user, : len(own)] = own
        scores[user, MAX_HELD:] = [-9 if score is None else score for score in rest]
    negatives = np.tile(np.arange(MAX_HELD, scores.shape[1]), (len(held), 1))
    held_out = columns([range(len(own)) for own in held])
    return held_out.users(), rank_among(scores, held_out, negatives)


BOTH = pytest.mark.parametrize("ranked", [in_catalogue, in_sample])


def naive_ranks(held: list[float], others: list[float | None]) -> list[int]:
    """Place items one by one: the best held-out item first, every tied other above it."""
    placed = [0] * len(held)
    for count, index in enumerate(sorted(range(len(held)), key=lambda i: -held[i]), start=1):
        above = sum(1 for other in others if other is not None and other >= held[index])
        placed[index] = above + count
    return placed


@BOTH
@given(drawn=users())
def test_ranks_equal_a_naive_loop(ranked: Rank, drawn: Users) -> None:
    held, others = drawn
    user, rank = ranked(held, others)
    for code, (scores, rest) in enumerate(zip(held, others, strict=True)):
        assert rank[user == code].tolist() == naive_ranks(scores, rest)


@BOTH
@given(drawn=users())
def test_ranks_are_monotonic_and_never_equal(ranked: Rank, drawn: Users) -> None:
    held, others = drawn
    user, rank = ranked(held, others)
    flat = np.array([score for scores in held for score in scores])
    for code in range(len(held)):
        own = rank[user == code]
        assert len(set(own.tolist())) == len(own)
        for one, first in zip(own, flat[user == code], strict=True):
            for other, second in zip(own, flat[user == code], strict=True):
                assert first <= second or one < other


@BOTH
def test_ties_count_against_the_model(ranked: Rank) -> None:
    _, rank = ranked([[1.0], [1.0], [1.0]], [[1.0, 0.0], [0.0, 0.5], [2.0, 1.0]])
    assert rank.tolist() == [2, 1, 3]


@BOTH
def test_rank_of_constant_scores_is_last(ranked: Rank) -> None:
    _, rank = ranked([[0.0]], [[0.0] * NUM_OTHERS])
    assert rank.tolist() == [NUM_OTHERS + 1]


@BOTH
def test_items_that_are_not_candidates_do_not_count(ranked: Rank) -> None:
    _, rank = ranked([[-5.0]], [[None] * NUM_OTHERS])
    assert rank.tolist() == [1]


NUM_ITEMS = 150  # more than two blocks of the compiled loop
SCORES = arrays(
    np.float32, (3, NUM_ITEMS), elements=st.sampled_from([-1.0, 0.0, 0.25, 3.0]).map(np.float32)
)
SEEN = st.lists(st.sets(st.integers(0, NUM_ITEMS - 1)), min_size=3, max_size=3)


@given(SCORES, SEEN, st.integers(1, NUM_ITEMS))
def test_recommend_returns_the_best_unseen_items_in_order(
    scores: NDArray[np.float32], seen: list[set[int]], k: int
) -> None:
    halves = [columns([sorted(own)[half::2] for own in seen]) for half in range(2)]
    records = recommend(scores, halves, k)
    for user, row in enumerate(scores):
        unseen = set(range(NUM_ITEMS)) - seen[user]
        best = sorted(unseen, key=lambda item: (-row[item], item))[:k]
        rest = k - len(best)
        assert records["per_user_recommended"][user].tolist() == [*best, *[-1] * rest]
        expected = [*row[best].tolist(), *[-np.inf] * rest]
        assert records["per_user_score"][user].tolist() == expected


def test_recommend_puts_the_lower_code_first_in_a_tie() -> None:
    scores = np.array([[1.0, 5.0, 1.0, 5.0]], np.float32)
    records = recommend(scores, [columns([[]])], 4)
    assert records["per_user_recommended"].tolist() == [[1, 3, 0, 2]]

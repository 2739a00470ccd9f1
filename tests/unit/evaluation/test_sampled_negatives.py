"""Laws of the sampled protocol's negatives: candidates, probabilities and independence."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import Columns
from fedrec_flower.evaluation.sampled_negatives import draw_negatives

Histories = Sequence[Sequence[int]]


def columns(histories: Histories) -> Columns:
    items = np.array([item for history in histories for item in history], np.int32)
    return Columns(np.cumsum([0, *map(len, histories)]), items, None)


def drawn(
    histories: Histories,
    num_items: int,
    num_negatives: int,
    *,
    seed: int = 0,
    codes: Sequence[int] | None = None,
) -> NDArray[np.int64]:
    """Draw negatives for users with these histories; by default, codes are 0, 1, ..."""
    users = np.array(range(len(histories)) if codes is None else codes, np.int32)
    return draw_negatives(users, [columns(histories)], num_items, num_negatives, seed)


@st.composite
def catalogues(draw: st.DrawFn) -> tuple[list[list[int]], int, int]:
    """Histories of any length, the size of the catalogue, and a possible number of negatives."""
    num_items = draw(st.integers(2, 40))
    some = st.sets(st.integers(0, num_items - 1), max_size=num_items - 1)
    histories = [sorted(known) for known in draw(st.lists(some, min_size=1, max_size=5))]
    left = num_items - max(map(len, histories))
    return histories, num_items, draw(st.integers(1, left))


@given(catalogues(), st.integers(0, 2**32))
def test_negatives_are_distinct_unseen_items_of_the_catalogue(
    catalogue: tuple[list[list[int]], int, int], seed: int
) -> None:
    histories, num_items, num_negatives = catalogue
    rows = drawn(histories, num_items, num_negatives, seed=seed)
    assert rows.shape == (len(histories), num_negatives)
    for known, row in zip(histories, rows.tolist(), strict=True):
        assert set(row) <= set(range(num_items)) - set(known)
        assert len(set(row)) == num_negatives


def test_negatives_exclude_the_items_of_every_part() -> None:
    parts = [columns([[0, 1], [5]]), columns([[2], [4]]), columns([[3], []])]
    rows = draw_negatives(np.arange(2, dtype=np.int32), parts, 8, 4, seed=0)
    assert sorted(rows[0].tolist()) == [4, 5, 6, 7]
    assert set(rows[1].tolist()) <= {0, 1, 2, 3, 6, 7}


# The first draws suffice for users who have seen few items, and never for users who have seen
# nearly all.
@pytest.mark.parametrize("num_known", [3, 40, 400])
def test_every_set_of_unseen_items_is_equally_likely(num_known: int) -> None:
    num_users, num_items = 4200, num_known + 7
    known = np.delete(np.arange(num_items), np.arange(7) * num_items // 7)
    part = Columns(
        np.arange(num_users + 1) * num_known, np.tile(known, num_users).astype(np.int32), None
    )
    codes = np.arange(num_users, dtype=np.int32)
    rows = np.sort(draw_negatives(codes, [part], num_items, 2, seed=0), axis=1)
    _, times = np.unique(rows, axis=0, return_counts=True)
    assert len(times) == 7 * 6 / 2
    expected = num_users / len(times)
    assert ((times - expected) ** 2 / expected).sum() < 45.3  # chi2, 20 degrees, p = .001


def test_negatives_depend_on_the_user_code_and_the_seed() -> None:
    rows = drawn([[0]] * 3, 500, 20)
    assert_array_equal(rows, drawn([[0]] * 3, 500, 20))
    pairs = [(rows[0], rows[1]), (rows[0], rows[2]), (rows[0], drawn([[0]], 500, 20, seed=1)[0])]
    for one, other in pairs:
        # Two independent draws of 20 from 499 share 20 * 20 / 499 on average.
        assert len(set(one.tolist()) & set(other.tolist())) < 6


def test_negatives_do_not_depend_on_other_users(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # From users who know one item to such as know all but the few that are drawn.
    histories = [list(range(1 + 10 * user)) for user in range(8)]
    together = drawn(histories, 80, 8)
    for user, known in enumerate(histories):
        assert_array_equal(drawn([known], 80, 8, codes=[user]), together[[user]])
    backwards = drawn(histories[::-1], 80, 8, codes=range(7, -1, -1))
    assert_array_equal(backwards[::-1], together)
    monkeypatch.setattr("fedrec_flower.evaluation.sampled_negatives._DRAWS_PER_BATCH", 3 * 80)
    assert_array_equal(drawn(histories, 80, 8), together)


@pytest.mark.parametrize("num_items", [9, 2000])
def test_all_unseen_items_are_negatives_if_as_many_are_needed(num_items: int) -> None:
    [row] = drawn([range(num_items - 5)], num_items, 5)
    assert sorted(row.tolist()) == list(range(num_items - 5, num_items))


def test_too_few_unseen_items_name_the_user_and_the_fix() -> None:
    asked = r"user code 9 has only 4 items left .*num_negatives asks for 5: lower it \(0 for none"
    with pytest.raises(ConfigError, match=asked):
        drawn([[0], [0, 1, 2, 3]], 8, 5, codes=[4, 9])

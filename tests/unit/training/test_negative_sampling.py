"""Laws of the training samples: positives, negatives, order, and no leak of held-out items."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.stats import chi2

from fedrec_flower.core.errors import DataError
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.data.splits.base import Negatives
from fedrec_flower.training.batches import _distinct
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.negative_sampling import Sampler, Samples, Task

if TYPE_CHECKING:
    from tests.conftest import Histories, MakeClient

NUM_ITEMS = 12
POOLS: list[Negatives] = ["honest", "legacy"]
Held = tuple["Histories", "Histories", "Histories"]


def sample(
    members: Sequence[ClientData],
    pool: Negatives = "honest",
    *,
    task: Task = "ranking",
    width: int = 1,
    num_negatives: int = 2,
    num_items: int = NUM_ITEMS,
    seed: int = 0,
    round_: int = 1,
    epoch: int = 0,
) -> Samples:
    """Draw one epoch's samples."""
    cohort = Cohort.gather(members, spare_held_out=pool == "legacy")
    return Sampler(task, width, num_negatives, num_items, seed, step_size=1).draw(
        cohort, round_, epoch
    )


@st.composite
def parts(draw: st.DrawFn) -> Held:
    """Train, validation and test items of one to four users; at least two items are unseen."""
    users = draw(st.lists(st.permutations(range(NUM_ITEMS)), min_size=1, max_size=4))
    cuts = [sorted(draw(st.tuples(*[st.integers(0, NUM_ITEMS - 2)] * 3))) for _ in users]
    return (
        [items[:a] for items, (a, _, _) in zip(users, cuts, strict=True)],
        [items[a:b] for items, (a, b, _) in zip(users, cuts, strict=True)],
        [items[b:c] for items, (_, b, c) in zip(users, cuts, strict=True)],
    )


def known(held: Held, pool: Negatives, user: int) -> set[int]:
    """The items that are no negatives of the user."""
    spared = held if pool == "legacy" else held[:1]
    return {item for part in spared for item in part[user]}


@pytest.mark.parametrize("pool", POOLS)
@given(held=parts(), num_negatives=st.integers(1, 4), seed=st.integers(0, 99))
def test_positives_are_train_items_and_negatives_are_unseen_items(
    make_client: "MakeClient", held: Held, num_negatives: int, seed: int, pool: Negatives
) -> None:
    data = make_client(*held)
    samples = sample([data], pool, num_negatives=num_negatives, seed=seed)
    assert samples.item.shape == (len(data) * (1 + num_negatives), 1)
    assert len(samples) == len(samples.user) == len(samples.target) == samples.offsets[-1]
    for user, history in enumerate(held[0]):
        own = samples.user == user
        liked = samples.item[own & (samples.target == 1), 0].tolist()
        disliked = samples.item[own & (samples.target == 0), 0].tolist()
        assert sorted(liked) == sorted(history)
        assert len(disliked) == num_negatives * len(history)
        assert not set(disliked) & known(held, pool, user)


@pytest.mark.parametrize("pool", POOLS)
@given(held=parts(), num_negatives=st.integers(1, 4), seed=st.integers(0, 99))
def test_pairs_have_a_positive_and_a_negative_of_the_same_user(
    make_client: "MakeClient", held: Held, num_negatives: int, seed: int, pool: Negatives
) -> None:
    samples = sample([make_client(*held)], pool, width=2, num_negatives=num_negatives, seed=seed)
    liked = [(user, item) for user, history in enumerate(held[0]) for item in history]
    found = zip(samples.user.tolist(), samples.item[:, 0].tolist(), strict=True)
    assert Counter(found) == Counter(liked * num_negatives)
    for user, disliked in zip(samples.user.tolist(), samples.item[:, 1].tolist(), strict=True):
        assert disliked not in known(held, pool, user)
    assert samples.target.tolist() == [1.0] * len(samples)


@given(held=parts(), num_negatives=st.integers(1, 4))
def test_list_has_a_positive_followed_by_all_its_negatives(
    make_client: "MakeClient", held: Held, num_negatives: int
) -> None:
    members = [make_client(*held)]
    lists = sample(members, width=1 + num_negatives, num_negatives=num_negatives)
    pairs = sample(members, width=2, num_negatives=num_negatives)
    assert lists.item.shape == (len(members[0]), 1 + num_negatives)
    dealt = [
        (user, items[0], other)
        for user, items in zip(lists.user.tolist(), lists.item.tolist(), strict=True)
        for other in items[1:]
    ]
    assert Counter(dealt) == Counter(
        (user, *pair) for user, pair in zip(pairs.user.tolist(), pairs.item.tolist(), strict=True)
    )


@given(first=parts(), second=parts(), pairwise=st.booleans())
def test_samples_of_a_client_do_not_depend_on_the_cohort(
    make_client: "MakeClient", first: Held, second: Held, *, pairwise: bool
) -> None:
    one, other = make_client(*first, client=4), make_client(*second, client=9)
    alone = sample([other], width=1 + pairwise)
    together = sample([one, other, one], width=1 + pairwise)
    own = slice(together.offsets[1], together.offsets[2])
    assert together.item[own].tolist() == alone.item.tolist()
    assert (together.user[own] - one.num_users).tolist() == alone.user.tolist()
    assert together.target[own].tolist() == alone.target.tolist()


def negatives(make_client: "MakeClient", pool: Negatives, num_draws: int) -> list[int]:
    """Counts of the negatives of a user with items 0, 1 | 2 | 3 of twelve."""
    data = make_client([[0, 1]], [[2]], [[3]])
    samples = sample([data], pool, width=2, num_negatives=num_draws // 2)
    times: list[int] = np.bincount(samples.item[:, 1], minlength=NUM_ITEMS).tolist()
    return times


@pytest.mark.parametrize(("pool", "first"), [("honest", 2), ("legacy", 4)])
def test_negatives_are_uniform_over_the_pool(
    make_client: "MakeClient", pool: Negatives, first: int
) -> None:
    times = np.array(negatives(make_client, pool, 20_000))
    assert times[:first].sum() == 0
    size = NUM_ITEMS - first
    expected = 20_000 / size
    assert ((times[first:] - expected) ** 2 / expected).sum() < chi2.ppf(0.999, size - 1)


def test_held_out_items_are_honest_negatives_and_never_legacy_ones(
    make_client: "MakeClient",
) -> None:
    honest, legacy = (negatives(make_client, pool, 2000) for pool in POOLS)
    assert min(honest[2:4]) > 0
    assert legacy[2:4] == [0, 0]


def test_shuffle_is_uniform_over_places(make_client: "MakeClient") -> None:
    data = make_client([[0, 1, 2]], ratings=[[[5.0] * 3], [[]], [[]]])
    orders = Counter(
        tuple(sample([data], task="rating", round_=round_).item[:, 0].tolist())
        for round_ in range(1200)
    )
    assert len(orders) == 3 * 2
    expected = 1200 / len(orders)
    statistic = sum((times - expected) ** 2 / expected for times in orders.values())
    assert statistic < chi2.ppf(0.999, len(orders) - 1)


def drawn_at(
    make_client: "MakeClient", what: str, seed: int, round_: int, epoch: int, client: int
) -> list[int]:
    """The drawn negatives in ascending order, or the order of the samples."""
    train = [[0, 1, 5, 7, 9], [2, 3]]
    ratings: list[list[list[float]]] = [[[5.0] * len(own) for own in train], [[], []], [[], []]]
    data = make_client(train, ratings=ratings, client=client)
    task: Task = "ranking" if what == "negatives" else "rating"
    samples = sample([data], task=task, num_negatives=20, seed=seed, round_=round_, epoch=epoch)
    items: list[int] = samples.item[:, 0].tolist()
    return sorted(items) if what == "negatives" else items


@pytest.mark.parametrize("what", ["negatives", "order"])
def test_draws_depend_on_their_address_only(make_client: "MakeClient", what: str) -> None:
    here = drawn_at(make_client, what, 0, 1, 0, 4)
    assert drawn_at(make_client, what, 0, 1, 0, 4) == here
    for elsewhere in ((1, 1, 0, 4), (0, 2, 0, 4), (0, 1, 1, 4), (0, 1, 0, 5)):
        assert drawn_at(make_client, what, *elsewhere) != here


@pytest.mark.parametrize(("pool", "held"), [("honest", []), ("legacy", [11])])
def test_user_of_all_items_is_an_error(
    make_client: "MakeClient", pool: Negatives, held: list[int]
) -> None:
    train = [item for item in range(NUM_ITEMS) if item not in held]
    data = make_client([[0], train], [[], held])
    with pytest.raises(DataError, match=r"interacted with all 12 items"):
        sample([data], pool)


@pytest.mark.parametrize(("num_items", "num_unknown"), [(NUM_ITEMS, 1), (3000, 1), (3000, 4)])
def test_user_of_nearly_all_items_gets_uniform_negatives(
    make_client: "MakeClient", num_items: int, num_unknown: int
) -> None:
    data = make_client([list(range(num_items - num_unknown))])
    samples = sample([data], width=2, num_negatives=1, num_items=num_items)
    times = np.bincount(samples.item[:, 1], minlength=num_items)
    assert not times[:-num_unknown].any()
    expected = len(samples) / num_unknown
    statistic = ((times[-num_unknown:] - expected) ** 2 / expected).sum()
    assert statistic <= chi2.ppf(0.999, num_unknown - 1 or 1)


@pytest.mark.parametrize("pairwise", [False, True])
def test_client_without_training_data_has_no_samples(
    make_client: "MakeClient", *, pairwise: bool
) -> None:
    nothing, something = make_client([[], []], [[1], [2]]), make_client([[3]])
    assert sample([nothing], width=1 + pairwise).item.shape == (0, 1 + pairwise)
    among = sample([something, nothing, something], width=1 + pairwise)
    assert among.offsets[1] == among.offsets[2]


def test_rating_samples_are_the_raw_train_ratings(make_client: "MakeClient") -> None:
    ratings: list[list[list[float]]] = [[[4.0, 2.5], [1.0]], [[5.0], []], [[], []]]
    data = make_client([[7, 3], [3]], [[1], []], ratings=ratings)
    samples = sample([data], task="rating")
    rows = zip(samples.user.tolist(), samples.item[:, 0].tolist(), samples.target, strict=True)
    assert sorted(rows) == [(0, 3, 2.5), (0, 7, 4.0), (1, 3, 1.0)]


def test_rating_samples_without_ratings_are_an_error_with_the_fix(
    make_client: "MakeClient",
) -> None:
    with pytest.raises(DataError, match="set task=ranking"):
        sample([make_client([[1, 2]])], task="rating")


@pytest.mark.parametrize("pairwise", [False, True])
@given(held=parts(), num_negatives=st.integers(1, 3))
def test_context_of_a_sample_is_the_items_before_its_positive(
    make_client: "MakeClient", held: Held, num_negatives: int, *, pairwise: bool
) -> None:
    cohort = Cohort.gather([make_client(held[0])], spare_held_out=False)
    sampler = Sampler("ranking", 1 + pairwise, num_negatives, NUM_ITEMS, seed=0, step_size=1)
    samples = sampler.draw(cohort, 1, 0, in_order=True)
    assert samples.context is not None
    for user, history in enumerate(held[0]):
        own = samples.user == user
        context, item, liked = samples.context[own], samples.item[own], samples.target[own] == 1
        assert [history[place] for place in context[liked]] == item[liked, 0].tolist()
        per_place = num_negatives if pairwise else num_negatives + 1
        assert Counter(context.tolist()) == dict.fromkeys(range(len(history)), per_place)


@given(held=parts())
def test_context_of_a_rating_is_the_items_before_it(make_client: "MakeClient", held: Held) -> None:
    ratings = [[[3.0] * len(own) for own in part] for part in (held[0], [[] for _ in held[0]])]
    data = make_client(held[0], ratings=[ratings[0], ratings[1], ratings[1]])
    cohort = Cohort.gather([data], spare_held_out=False)
    sampler = Sampler("rating", width=1, num_negatives=1, num_items=NUM_ITEMS, seed=0, step_size=1)
    samples = sampler.draw(cohort, 1, 0, in_order=True)
    assert samples.context is not None
    read = zip(samples.user, samples.context, samples.item[:, 0], strict=True)
    assert all(held[0][user][place] == item for user, place, item in read)


@given(held=parts(), seed=st.integers(0, 99))
def test_by_user_keeps_the_samples_of_a_user_together(
    make_client: "MakeClient", held: Held, seed: int
) -> None:
    clients = [make_client(held[0], client=1), make_client(held[0][:1], client=2)]
    cohort = Cohort.gather(clients, spare_held_out=False)
    sampler = Sampler("ranking", 1, 2, NUM_ITEMS, seed, step_size=1)
    mixed, by_user = (sampler.draw(cohort, 1, 0, by_user=flag) for flag in (False, True))
    assert_array_equal(by_user.offsets, mixed.offsets)
    for user in range(cohort.num_users):
        own, before = by_user.user == user, mixed.user == user
        assert len(np.flatnonzero(np.diff(np.r_[0, own, 0]))) == 2 * own.any()
        assert_array_equal(by_user.item[own], mixed.item[before])  # in their shuffled order
        assert_array_equal(by_user.target[own], mixed.target[before])


def test_order_of_users_differs_between_epochs(make_client: "MakeClient") -> None:
    cohort = Cohort.gather([make_client([[1], [2], [3], [4]])], spare_held_out=False)
    sampler = Sampler("ranking", 1, 1, NUM_ITEMS, seed=0, step_size=1)
    orders = {tuple(sampler.draw(cohort, 1, epoch, by_user=True).user) for epoch in range(40)}
    assert len(orders) > 12


def test_samples_without_order_have_no_context(make_client: "MakeClient") -> None:
    assert sample([make_client([[1, 2, 3]])]).context is None


@given(st.lists(st.integers(0, 19), min_size=1, max_size=30))
def test_distinct_keys_are_equal_for_few_and_many_possible_keys(keys: list[int]) -> None:
    some = np.array(keys, np.int64)
    few, many = _distinct(some, 10**6), _distinct(some, 20)  # sorted, flagged
    for found, expected in zip(few, many, strict=True):
        assert_array_equal(found, expected)
    assert_array_equal(few[0][few[1]], some)
    assert few[0].tolist() == sorted(set(keys))

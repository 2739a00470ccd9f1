"""Secure aggregation: the sum is right or nothing is released, and one vector alone is noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.stats import chi2

from fedrec_flower.communication.secure_aggregation.client import Member
from fedrec_flower.communication.secure_aggregation.messages import RevealedShares
from fedrec_flower.communication.secure_aggregation.primitives import (
    KeyPair,
    neighbourhoods,
    pairwise_mask,
)
from fedrec_flower.communication.secure_aggregation.server import Coordinator, TooFewError
from tests.helpers.secure_sessions import (
    LENIENT,
    STAGES,
    Session,
    Vector,
    schedule,
    shared_among_three,
    vectors,
)

RNG = np.random.default_rng(7)


def needed(num_holders: int) -> int:
    """The fewest shares of which no two disjoint groups hold enough."""
    return num_holders // 2 + 1


# --- the sum ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("num_neighbours", [None, 4])
def test_the_masked_sum_is_the_plain_sum(num_neighbours: int | None, bits: int) -> None:
    threshold = needed(7 if num_neighbours is None else 5)
    session = Session(vectors(RNG, 7, bits=bits), threshold, num_neighbours)
    assert_array_equal(session.run(), session.plain())
    assert session.coordinator.masked == frozenset(range(7))


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
@pytest.mark.parametrize("stage", range(4), ids=STAGES)
def test_up_to_forty_percent_may_fall_silent_at_any_stage(stage: int, share: float) -> None:
    silent = [set[int]() for _ in STAGES]
    silent[stage] = set(RNG.choice(10, round(share * 10), replace=False).tolist())
    session = Session(vectors(RNG, 10), needed(10), silent=silent)
    assert_array_equal(session.run(), session.plain())
    in_the_sum = frozenset(range(10)) - (silent[stage] if STAGES[stage] != "unmask" else set())
    assert session.coordinator.masked == in_the_sum


@given(
    seed=st.integers(0, 2**32 - 1),
    num_members=st.integers(3, 9),
    rates=st.tuples(*[st.floats(0, 0.4)] * 4),
    complete=st.booleans(),
)
def test_whatever_the_schedule_the_sum_is_right_or_nothing_is_released(
    seed: int,
    num_members: int,
    rates: tuple[float, ...],
    complete: bool,  # noqa: FBT001  # hypothesis passes by name
) -> None:
    rng = np.random.default_rng(seed)
    num_neighbours = None if complete else 4
    holders = num_members if complete else min(5, num_members)
    session = Session(
        vectors(rng, num_members),
        needed(holders),
        num_neighbours,
        schedule(rng, num_members, rates),
    )
    released = session.released()
    gone = set[int]().union(*session.silent)
    if released is not None:
        assert_array_equal(released, session.plain())
    if complete:  # then it is known exactly when there are enough
        assert (released is not None) == (num_members - len(gone) >= session.threshold)


def test_below_the_threshold_nothing_is_released_at_any_stage() -> None:
    for stage in range(4):
        silent = [set[int]() for _ in STAGES]
        silent[stage] = {0, 1, 2}
        session = Session(vectors(RNG, 5), 3, silent=silent)
        with pytest.raises(TooFewError, match="left: lower secure_aggregation"):
            session.run()


def test_with_one_more_it_is_released() -> None:
    for stage in range(4):
        silent = [set[int]() for _ in STAGES]
        silent[stage] = {0, 1}
        session = Session(vectors(RNG, 5), 3, silent=silent)
        assert_array_equal(session.run(), session.plain())


def test_a_graph_in_pieces_releases_nothing() -> None:
    # On a circle of six with two neighbours each, two opposite members cut it in two.
    circle = {place: frozenset({(place - 1) % 6, (place + 1) % 6}) for place in range(6)}
    session = Session(vectors(RNG, 6), 2, silent=[set(), set(), {0, 3}, set()])
    session.coordinator = Coordinator(circle, 2)
    with pytest.raises(TooFewError, match=r"raise secure_aggregation\.num_neighbours"):
        session.run()


def test_revealed_nonsense_releases_nothing() -> None:
    session = Session(vectors(RNG, 4), 3)
    session.run()
    wrong = {
        place: RevealedShares(
            seeds={m: bytes([1 + place, 0, 0, 0]) + bytes(48) for m in range(4)}, keys={}
        )
        for place in range(4)
    }
    with pytest.raises(TooFewError, match="do not match"):
        session.coordinator.unmask(wrong)


# --- what the server sees -----------------------------------------------------------------------


def chi_square_p_value(vector: Vector) -> float:
    """How likely bytes as unevenly spread as a vector's are, were they noise."""
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    expected = vector.nbytes / 256
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), 255))


def test_one_masked_vector_cannot_be_told_from_noise() -> None:
    zeros = [np.zeros(1 << 14, np.uint32)] * 5
    session = Session(zeros, 3)
    session.run()
    values = [chi_square_p_value(vector) for vector in session.heard.values()]
    # Five of them: the least likely of five noises is below 1e-4 once in 2,000 times.
    assert min(values) > 1e-4
    assert chi_square_p_value(zeros[0]) < 1e-9
    # Nor is there anything in common between two of them.
    one, other, *_ = session.heard.values()
    assert chi_square_p_value(one - other) > 1e-4


def test_the_same_vector_is_masked_anew_in_every_session() -> None:
    one, other = (Session([np.zeros(8, np.uint32)] * 3, 2) for _ in range(2))
    one.run()
    other.run()
    assert all((one.heard[place] != other.heard[place]).any() for place in range(3))


def test_self_masks_hide_a_member_whose_vector_comes_late() -> None:
    """With the masking key of a member known, its vector is still noise (Bonawitz, section 4.2)."""
    session = Session([np.zeros(1 << 14, np.uint32)] * 3, 2)
    session.run()
    late = session.member(0)
    without = session.heard[0].copy()
    for other in (1, 2):  # what the server could do if it pretended that 0 had dropped out
        agreed = late.masking.shared_key(session.coordinator.keys[other].masking)
        without -= pairwise_mask(agreed, len(without), without.dtype)
    assert chi_square_p_value(without) > 1e-4
    assert without.any()


# --- the graph ----------------------------------------------------------------------------------


@given(num_members=st.integers(1, 40), half=st.integers(1, 8))
def test_every_member_has_as_many_neighbours_and_they_are_mutual(
    num_members: int, half: int
) -> None:
    neighbours = neighbourhoods(num_members, 2 * half)
    assert {len(others) for others in neighbours.values()} == {min(2 * half, num_members - 1)}
    for member, others in neighbours.items():
        assert member not in others
        assert all(member in neighbours[other] for other in others)


def test_the_graph_is_drawn_anew_each_time() -> None:
    assert len({str(neighbourhoods(12, 2)) for _ in range(5)}) > 1


def test_a_member_goes_through_its_state_unchanged() -> None:
    members, sent = shared_among_three()
    member = members[0]
    assert Member.from_state(member.state(), LENIENT) == member
    member.open({other: sent[other][0] for other in (1, 2)})
    assert Member.from_state(member.state(), LENIENT) == member
    member.mask(np.zeros(2, np.uint32), clients=1)
    assert Member.from_state(member.state(), LENIENT) == member


def test_key_pairs_are_never_the_same() -> None:
    assert len({KeyPair.generate().private for _ in range(10)}) == 10

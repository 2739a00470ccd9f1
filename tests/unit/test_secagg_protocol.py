"""The protocol of secure aggregation, stage by stage: the sum comes out, and nothing else does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from scipy.stats import chi2

from fedrec_flower.secure_aggregation import (
    Coordinator,
    Member,
    PublicKeys,
    RefusedError,
    Revealed,
    TooFewError,
    Wanted,
    neighbourhoods,
)
from fedrec_flower.secure_aggregation.primitives import KeyPair, common_mask
from tests.secure_sessions import STAGES, Session, Vector, schedule, vectors

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
        place: Revealed(
            seeds={m: bytes([1 + place, 0, 0, 0]) + bytes(48) for m in range(4)}, keys={}
        )
        for place in range(4)
    }
    with pytest.raises(TooFewError, match="do not fit"):
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
        agreed = late.masking.agreed(session.coordinator.keys[other].masking)
        without -= common_mask(agreed, len(without), without.dtype)
    assert chi_square_p_value(without) > 1e-4
    assert without.any()


# --- what a member refuses ----------------------------------------------------------------------


@pytest.fixture
def masked() -> Session:
    """Five members whose vectors have just been masked; four neighbours each."""
    session = Session(vectors(RNG, 5), 3, silent=[set(), set(), set(), set(range(5))])
    assert session.released() is None
    return session


EVERYONE = frozenset(range(5))
WRONG = {
    "both shares": (Wanted(EVERYONE, frozenset({1})), r"both shares of members \[1\]"),
    "a stranger": (Wanted(EVERYONE | {9}, frozenset()), "shares of a stranger"),
    "its own key": (Wanted(EVERYONE - {0}, frozenset({0})), "its own masking key"),
    "too few": (Wanted(frozenset({0, 1}), frozenset({2, 3, 4})), "2 survivors are too few"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_member_reveals_nothing_that_would_unmask_a_vector(masked: Session, wrong: str) -> None:
    wanted, words = WRONG[wrong]
    with pytest.raises(RefusedError, match=words):
        masked.member(0).unmask(wanted)


def test_a_member_reveals_once(masked: Session) -> None:
    member = masked.member(0)
    member.unmask(Wanted(EVERYONE - {4}, frozenset({4})))
    with pytest.raises(RefusedError, match="asked to unmask, but next it can over"):
        member.unmask(Wanted(EVERYONE, frozenset()))
    assert not member.held


def test_no_two_lies_of_the_server_get_both_secrets_of_a_member(masked: Session) -> None:
    """Told to some that 4 survived and to others that it did not: one of the two stays secret."""
    seeds, keys = 0, 0
    for place in range(4):
        try:
            if place < 2:
                told = masked.member(place).unmask(Wanted(EVERYONE, frozenset()))
            else:
                told = masked.member(place).unmask(Wanted(EVERYONE - {4}, frozenset({4})))
        except RefusedError:
            continue
        seeds, keys = seeds + (4 in told.seeds), keys + (4 in told.keys)
    assert (seeds, keys) == (2, 2)
    assert max(seeds, keys) < masked.threshold


def test_a_threshold_that_two_groups_could_reach_is_refused() -> None:
    member = Member.fresh(0, threshold=2)
    others = {place: Member.fresh(place, 2).public for place in (1, 2, 3)}
    with pytest.raises(RefusedError, match="2 does not protect a secret that 4 share"):
        member.share(others)


def test_too_few_neighbours_are_refused() -> None:
    with pytest.raises(RefusedError, match="3 does not protect a secret that 2 share"):
        Member.fresh(0, threshold=3).share({1: Member.fresh(1, 3).public})


def test_one_neighbour_under_two_names_is_refused() -> None:
    twin = Member.fresh(1, 2).public
    with pytest.raises(RefusedError, match="two have the same key"):
        Member.fresh(0, threshold=2).share({1: twin, 2: twin})


def test_what_is_no_public_key_is_refused_by_both_sides() -> None:
    nonsense = {place: PublicKeys(bytes([2, place] * 16), b"-") for place in (1, 2)}
    with pytest.raises(RefusedError, match="public key"):
        Member.fresh(0, 2).share({1: PublicKeys(b"1", b"2"), 2: PublicKeys(b"3", b"4")})
    coordinator = Coordinator(neighbourhoods(3, None), 2)
    honest = {0: Member.fresh(0, 2).public}
    with pytest.raises(TooFewError):
        coordinator.advertised(honest | nonsense)


def test_stages_are_passed_in_order_and_once() -> None:
    member = Member.fresh(0, 2)
    for stage in (lambda: member.open({}), lambda: member.mask(np.zeros(1, np.uint32))):
        with pytest.raises(RefusedError, match="next it can share"):
            stage()
    others = {place: Member.fresh(place, 2).public for place in (1, 2)}
    member.share(others)
    with pytest.raises(RefusedError, match="asked to share, but next it can open"):
        member.share(others)


def test_a_vector_is_masked_once() -> None:
    session = Session(vectors(RNG, 3), 2)
    session.run()
    with pytest.raises(RefusedError, match="asked to mask, but next it can unmask"):
        session.member(0).mask(session.vectors[0])


def shared_among_three() -> tuple[list[Member], dict[int, dict[int, bytes]]]:
    members = [Member.fresh(place, 2) for place in range(3)]
    public = {member.place: member.public for member in members}
    sent = {m.place: m.share({p: k for p, k in public.items() if p != m.place}) for m in members}
    return members, sent


def test_shares_that_were_changed_misdirected_or_sent_back_are_refused() -> None:
    members, sent = shared_among_three()
    changed = bytearray(sent[1][0])
    changed[-9] ^= 1
    for encrypted, words in (
        ({1: bytes(changed)}, "shares of member 1 have been changed"),
        ({1: sent[2][0]}, "shares of member 1 have been changed"),
        ({1: sent[0][1]}, "shares of member 1 are not meant for 0"),
        ({5: sent[1][0]}, "come from a stranger"),
        ({}, "0 neighbours shared, too few"),
    ):
        with pytest.raises(RefusedError, match=words):
            members[0].open(encrypted)
    members[0].open({1: sent[1][0]})  # it is as it was before: an honest request is still served


def test_a_member_whose_shares_are_incomplete_counts_as_gone() -> None:
    _, sent = shared_among_three()
    coordinator = Coordinator(neighbourhoods(3, None), 2)
    coordinator.keys = dict.fromkeys(range(3), PublicKeys(b"", b""))
    del sent[2][0]
    assert set(coordinator.shared(sent)) == {0, 1}


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
    assert Member.restored(member.state()) == member
    member.open({other: sent[other][0] for other in (1, 2)})
    assert Member.restored(member.state()) == member
    member.mask(np.zeros(2, np.uint32))
    assert Member.restored(member.state()) == member


def test_key_pairs_are_never_the_same() -> None:
    assert len({KeyPair.fresh().private for _ in range(10)}) == 10

"""What a member of a session refuses, whatever the server asks."""

from dataclasses import replace

import numpy as np
import pytest

from fedrec_flower.communication.secure_aggregation.client import Member, RefusedError, Rules
from fedrec_flower.communication.secure_aggregation.messages import PublicKeys
from fedrec_flower.communication.secure_aggregation.primitives import neighbourhoods
from fedrec_flower.communication.secure_aggregation.server import (
    Coordinator,
    TooFewClientsError,
    TooFewError,
)
from tests.helpers.secure_sessions import LENIENT, Session, shared_among_three, vectors

RNG = np.random.default_rng(7)


@pytest.fixture
def masked() -> Session:
    """Five members whose vectors have just been masked; four neighbours each."""
    session = Session(vectors(RNG, 5), 3, silent=[set(), set(), set(), set(range(5))])
    assert session.released() is None
    return session


EVERYONE = frozenset(range(5))
WRONG = {
    "both shares": (EVERYONE, frozenset({1}), r"both shares of members \[1\]"),
    "a stranger": (EVERYONE | {9}, frozenset(), "shares of a stranger"),
    "its own key": (EVERYONE - {0}, frozenset({0}), "its own masking key"),
    "too few": (frozenset({0, 1}), frozenset({2, 3, 4}), "2 survivors are too few"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_member_reveals_nothing_that_would_unmask_a_vector(masked: Session, wrong: str) -> None:
    survivors, dropouts, words = WRONG[wrong]
    with pytest.raises(RefusedError, match=words):
        masked.member(0).unmask(masked.wanted(0, survivors, dropouts))


def test_a_member_reveals_once(masked: Session) -> None:
    member = masked.member(0)
    member.unmask(masked.wanted(0, EVERYONE - {4}, frozenset({4})))
    with pytest.raises(RefusedError, match="asked to unmask, but next it can over"):
        member.unmask(masked.wanted(0, EVERYONE, frozenset()))
    assert not member.held


def test_no_two_lies_of_the_server_get_both_secrets_of_a_member(masked: Session) -> None:
    """Told to some that 4 survived and to others that it did not: one of the two stays secret."""
    seeds, keys = 0, 0
    for place in range(4):
        try:
            gone = frozenset({4}) if place >= 2 else frozenset()
            told = masked.member(place).unmask(masked.wanted(place, EVERYONE - gone, gone))
        except RefusedError:
            continue
        seeds, keys = seeds + (4 in told.seeds), keys + (4 in told.keys)
    assert (seeds, keys) == (2, 2)
    assert max(seeds, keys) < masked.threshold


def test_a_threshold_that_two_groups_could_reach_is_refused() -> None:
    member = Member.create(0, 2, LENIENT)
    others = {place: Member.create(place, 2, LENIENT).public for place in (1, 2, 3)}
    with pytest.raises(RefusedError, match="2 does not protect a secret that 4 share"):
        member.share(others)


def test_a_server_that_asks_for_threshold_one_and_no_neighbours_is_refused() -> None:
    """Item 14: It would get the seed of the only mask, and so the vector in clear."""
    with pytest.raises(RefusedError, match="threshold of 1 for 1 nodes is below the 3 that the se"):
        Member.create(0, 1, Rules(0.6, min_nodes=3, min_clients=3)).share({})


def test_a_threshold_below_the_share_of_the_settings_is_refused() -> None:
    """Item 14: nodes refuse thresholds and neighbourhoods below the settings."""
    others = {place: Member.create(place, 3, LENIENT).public for place in range(1, 5)}
    Member.create(0, 3, Rules(0.6, 3, 3)).share(others)
    with pytest.raises(RefusedError, match="threshold of 3 for 5 nodes is below the 4"):
        Member.create(0, 3, Rules(0.7, 3, 3)).share(others)


def test_too_few_clients_around_a_member_are_not_unmasked() -> None:
    """Item 14: nodes refuse thresholds and neighbourhoods below the settings."""
    for least, refused in ((5, False), (6, True)):
        session = Session(vectors(RNG, 5), 3, silent=[set(), set(), set(), set(range(5))])
        assert session.released() is None
        session.rules = Rules(0.6, 3, least)
        wanted = session.wanted(0, EVERYONE, frozenset())
        if refused:
            with pytest.raises(RefusedError, match="5 clients around member 0 are too few"):
                session.member(0).unmask(wanted)
        else:
            assert session.member(0).unmask(wanted).seeds.keys() == EVERYONE


def test_a_server_cannot_speak_for_more_clients_than_a_neighbour_has(masked: Session) -> None:
    """Item 14: nodes refuse thresholds and neighbourhoods below the settings."""
    wanted = masked.wanted(0, EVERYONE, frozenset())
    lies = (
        replace(wanted, clients={**wanted.clients, 2: 1000}),
        replace(wanted, clients={}, tags={}),
        replace(wanted, tags={**wanted.tags, 2: masked.parts[2].tags[1]}),
        replace(wanted, tags={**wanted.tags, 2: masked.parts[0].tags[2]}),  # sent back
    )
    for lie in lies:
        with pytest.raises(RefusedError, match=r"number of clients of member \d is not its own"):
            masked.member(0).unmask(lie)


def test_the_server_asks_for_no_shares_that_members_would_refuse() -> None:
    """Item 14: nodes refuse thresholds and neighbourhoods below the settings."""
    session = Session(vectors(RNG, 5), 3)
    session.coordinator.min_clients = 6
    with pytest.raises(TooFewClientsError, match=r"have 5 clients, and .*min_clients=6"):
        session.run()


def test_too_few_neighbours_are_refused() -> None:
    with pytest.raises(RefusedError, match="3 does not protect a secret that 2 share"):
        Member.create(0, 3, LENIENT).share({1: Member.create(1, 3, LENIENT).public})


def test_one_neighbour_under_two_names_is_refused() -> None:
    twin = Member.create(1, 2, LENIENT).public
    with pytest.raises(RefusedError, match="two have the same key"):
        Member.create(0, 2, LENIENT).share({1: twin, 2: twin})


def test_what_is_no_public_key_is_refused_by_both_sides() -> None:
    nonsense = {place: PublicKeys(bytes([2, place] * 16), b"-") for place in (1, 2)}
    with pytest.raises(RefusedError, match="public key"):
        Member.create(0, 2, LENIENT).share({1: PublicKeys(b"1", b"2"), 2: PublicKeys(b"3", b"4")})
    coordinator = Coordinator(neighbourhoods(3, None), 2)
    honest = {0: Member.create(0, 2, LENIENT).public}
    with pytest.raises(TooFewError):
        coordinator.collect_keys(honest | nonsense)


def test_stages_are_passed_in_order_and_once() -> None:
    member = Member.create(0, 2, LENIENT)
    for stage in (lambda: member.open({}), lambda: member.mask(np.zeros(1, np.uint32), 1)):
        with pytest.raises(RefusedError, match="next it can share"):
            stage()
    others = {place: Member.create(place, 2, LENIENT).public for place in (1, 2)}
    member.share(others)
    with pytest.raises(RefusedError, match="asked to share, but next it can open"):
        member.share(others)


def test_a_vector_is_masked_once() -> None:
    session = Session(vectors(RNG, 3), 2)
    session.run()
    with pytest.raises(RefusedError, match="asked to mask, but next it can unmask"):
        session.member(0).mask(session.vectors[0], 1)


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
    assert set(coordinator.collect_shares(sent)) == {0, 1}

"""Laws of faults: rates are kept, the seed repeats them, and one client's fate is its own."""

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fedrec_flower.communication.limits import Limits
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.updates import Updates
from fedrec_flower.experiment.composition import compose
from fedrec_flower.threats.faults import Faults, NoFaults
from fedrec_flower.threats.latency import latency

if TYPE_CHECKING:
    from tests.conftest import MakeClient

CLIENTS = np.arange(20_000)
TABLES = {"item"}
LIMITS = Limits(weight=100.0, value=1e6)
RATES = ("dropout", "crash", "not_a_number", "infinite", "huge", "wrong_shape", "wrong_weight")


@cache
def custom() -> dict[str, Any]:
    node: dict[str, Any] = compose(["faults=custom"])[0]["faults"]
    return node


def faults(**choices: Any) -> Faults:
    node = custom() | choices
    made: Faults = build("faults", node, seed=3, num_clients=len(CLIENTS), num_items=30)
    return made


def updates_of(clients: list[int]) -> Updates:
    """Two item rows and one dense vector for each client, with different values."""
    count = len(clients)
    return Updates(
        clients=np.array(clients),
        weights=np.arange(1.0, count + 1),
        offsets=np.arange(count + 1) * 2,
        rows=np.tile([3, 7], count),
        tensors={
            "item": np.repeat(np.array(clients, np.float32) + 1, 2)[:, None] * np.ones(4, "f"),
            "dense": (np.array(clients, np.float32) + 1)[:, None] * np.ones(3, "f"),
        },
    )


def near(count: int, rate: float) -> bool:
    """Whether so many of all clients are the rate, to five standard deviations."""
    return bool(abs(count - rate * len(CLIENTS)) < 5 * np.sqrt(rate * (1 - rate) * len(CLIENTS)))


# --- rates and draws ----------------------------------------------------------------------------


def test_every_fault_has_its_rate_and_is_drawn_again_in_each_round_and_attempt() -> None:
    rates = dict(zip(RATES, (0.3, 0.05, 0.1, 0.02, 0.03, 0.04, 0.06), strict=True))
    world = faults(**rates, repeated=0.08)
    seen = {}
    for round_, attempt in ((1, 0), (2, 0), (1, 1)):
        mishap = world._kinds(CLIENTS, round_, attempt)
        for name, rate in (rates | {"repeated": 0.08}).items():
            assert near(int((mishap == name).sum()), rate)
        seen[round_, attempt] = mishap
    both = (seen[1, 0] == "dropout") & (seen[2, 0] == "dropout")
    assert near(int(both.sum()), 0.3**2)
    both = (seen[1, 0] == "dropout") & (seen[1, 1] == "dropout")
    assert near(int(both.sum()), 0.3**2)


@given(st.lists(st.integers(0, 19_999), min_size=1, max_size=9, unique=True), st.integers(0, 9))
def test_faults_of_a_client_do_not_depend_on_other_clients(clients: list[int], at: int) -> None:
    world = faults(dropout=0.3, crash=0.2, deadline=50.0)
    absent, alone = world.absent(clients, at, 0), dict[int, Failure]()
    for client in clients:
        alone |= world.absent([client], at, 0)
    assert absent == alone
    sizes = np.full(len(clients), 40)
    late = world.late(np.array(clients), sizes, at, 0)
    assert late == {
        client: reason
        for client in clients
        for reason in world.late(np.array([client]), np.array([40]), at, 0).values()
    }


def test_faults_depend_on_the_seed() -> None:
    world = faults(dropout=0.3)
    other = replace(world, seed=4)
    assert world.absent(range(100), 1, 0) == faults(dropout=0.3).absent(range(100), 1, 0)
    assert world.absent(range(100), 1, 0) != other.absent(range(100), 1, 0)


def test_absences_have_their_failure_kind() -> None:
    assert set(faults(dropout=1.0).absent([1, 2], 1, 0).values()) == {
        Failure(FailureKind.DROPPED_OUT)
    }
    assert set(faults(crash=1.0).absent([1, 2], 1, 0).values()) == {Failure(FailureKind.CRASHED)}


# --- latency ------------------------------------------------------------------------------------


def test_without_spread_work_takes_as_long_as_there_are_interactions() -> None:
    sizes = CLIENTS % 700
    assert_array_equal(latency(3, CLIENTS, sizes, 1, 0, 0.0), sizes)


def test_latency_is_log_normal_over_devices_and_over_rounds() -> None:
    ones = np.ones(len(CLIENTS), np.int64)
    rounds = [np.log(latency(3, CLIENTS, ones, round_, 0, 0.5)) for round_ in (1, 2)]
    for taken in rounds:
        assert np.mean(taken) == pytest.approx(0, abs=0.03)
        assert np.std(taken) == pytest.approx(0.5 * np.sqrt(2), rel=0.03)
    # Half of the variance is the device's, which stays.
    assert np.corrcoef(rounds)[0, 1] == pytest.approx(1 / 2, abs=0.03)


def test_exactly_the_clients_above_the_deadline_are_late() -> None:
    sizes = np.full(len(CLIENTS), 40)
    taken = latency(3, CLIENTS, sizes, 5, 1, 0.5)
    late = faults(deadline=60.0).late(CLIENTS, sizes, 5, 1)
    assert 0 < len(late) < len(CLIENTS)
    assert set(late) == set(np.flatnonzero(taken > 60).tolist())
    assert {failure.kind for failure in late.values()} == {"late"}
    assert faults().late(CLIENTS, sizes, 5, 1) == {}


# --- what breaks --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("not_a_number", "not_finite"),
        ("infinite", "not_finite"),
        ("huge", "huge"),
        ("wrong_weight", "wrong_weight"),
    ],
)
def test_a_corrupted_update_has_its_value(name: str, kind: str) -> None:
    sent = updates_of([4, 5, 6])
    arrived, odd = faults(**{name: 1.0}).corrupt(sent, TABLES, 1, 0)
    reasons = LIMITS.violations(arrived, TABLES)
    assert odd == []
    assert {c: failure.kind for c, failure in reasons.items()} == dict.fromkeys((4, 5, 6), kind)


def test_wrong_weights_are_negative_zero_and_very_large() -> None:
    arrived, _ = faults(wrong_weight=1.0).corrupt(updates_of([6, 7, 8]), TABLES, 1, 0)
    negative, nothing, enormous = arrived.weights
    assert negative == -1
    assert nothing == 0
    assert enormous > LIMITS.weight


def test_a_reply_of_wrong_shape_is_separate_from_the_updates() -> None:
    arrived, odd = faults(wrong_shape=1.0).corrupt(updates_of([4, 5]), TABLES, 1, 0)
    assert len(arrived.clients) == 0
    assert [reply.client for reply in odd] == [4, 5]
    assert odd[0].tensors["dense"].shape == (2, 3)
    assert not any(reply.duplicate for reply in odd)


def test_a_repeated_reply_is_valid_and_has_an_equal_duplicate() -> None:
    sent = updates_of([4, 5])
    arrived, odd = faults(repeated=1.0).corrupt(sent, TABLES, 1, 0)
    assert_array_equal(arrived.clients, sent.clients)
    assert [(reply.client, reply.weight, reply.duplicate) for reply in odd] == [
        (4, 1, 1),
        (5, 2, 1),
    ]
    assert_array_equal(odd[1].tensors["item"], sent.tensors["item"][2:])
    assert_array_equal(odd[1].tensors["dense"], sent.tensors["dense"][1])


@pytest.mark.parametrize("name", [*RATES[2:], "repeated"])
def test_corruption_does_not_change_its_input(name: str) -> None:
    sent, same = updates_of([4, 5, 6]), updates_of([4, 5, 6])
    faults(**{name: 1.0}, attackers=1.0).corrupt(sent, TABLES, 1, 0)
    assert_array_equal(sent.weights, same.weights)
    for key, value in sent.tensors.items():
        assert_array_equal(value, same.tensors[key])


def test_updates_without_tensors_are_not_corrupted() -> None:
    sent = replace(updates_of([4, 5]), tensors={})
    arrived, odd = faults(wrong_shape=1.0, attackers=1.0).corrupt(sent, TABLES, 1, 0)
    assert arrived is sent
    assert odd == []


# --- attackers ----------------------------------------------------------------------------------


def test_attackers_are_a_fixed_share_and_scale_their_updates_alone() -> None:
    world = faults(attackers=0.2, factor=-10.0)
    malicious_clients = world._attackers
    assert malicious_clients.sum() == 0.2 * len(CLIENTS)
    clients = [
        int(np.flatnonzero(malicious_clients)[0]),
        int(np.flatnonzero(~malicious_clients)[0]),
    ]
    sent = updates_of(clients)
    for round_ in (1, 2):
        arrived, odd = world.corrupt(sent, TABLES, round_, 0)
        assert odd == []
        for name, rows in (("item", slice(0, 2)), ("dense", slice(0, 1))):
            first, rest = sent.tensors[name][rows], sent.tensors[name][rows.stop :]
            assert_array_equal(arrived.tensors[name][rows], -10 * first)
            assert_array_equal(arrived.tensors[name][rows.stop :], rest)


def test_label_flipping_uses_items_that_users_never_touched(make_client: "MakeClient") -> None:
    data = make_client([[1, 2, 3], [4]], [[5], [6]], [[7], [8]], client=9)
    world = faults(attackers=1.0, attack="label_flip")
    seen = world.tamper(data).train
    mine, other = set(seen.item[:3].tolist()), set(seen.item[3:].tolist())
    assert_array_equal(seen.offsets, data.train.offsets)
    assert len(mine) == 3
    assert not mine & {1, 2, 3, 5, 7}
    assert not other & {4, 6, 8}
    assert_array_equal(world.tamper(data).train.item, seen.item)


def test_honest_clients_train_on_their_data(make_client: "MakeClient") -> None:
    world = faults(attackers=0.5, attack="label_flip")
    honest = int(np.flatnonzero(~world._attackers)[0])
    data = make_client([[1, 2, 3]], client=honest)
    assert world.tamper(data) is data
    scaling = faults(attackers=1.0)
    assert scaling.tamper(data) is data


def test_label_flipping_with_few_untouched_items_uses_all_of_them(
    make_client: "MakeClient",
) -> None:
    data = make_client([list(range(28))])
    world = faults(attackers=1.0, attack="label_flip")
    flipped = world.tamper(data).train.item
    assert set(flipped[:2].tolist()) == {28, 29}
    assert_array_equal(flipped[2:], data.train.item[2:])
    assert_array_equal(data.train.item, np.arange(28))


# --- choices ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "complaint"),
    [
        ({"dropout": 1.5}, r"faults\.dropout must be a share from 0 to 1: 1\.5"),
        ({"attackers": -0.1}, r"faults\.attackers must be a share from 0 to 1"),
        ({"dropout": 0.6, "huge": 0.5}, r"from dropout to repeated sum to 1\.1: at most 1"),
        ({"deadline": 0.0}, r"faults\.deadline must be above 0 or null: 0"),
        ({"latency_spread": -1.0}, r"faults\.latency_spread must not be negative"),
    ],
)
def test_impossible_rates_are_refused(choice: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        faults(**choice)


def test_only_absences_is_true_without_other_faults() -> None:
    assert NoFaults().only_absences
    assert faults(dropout=0.3, crash=0.1).only_absences
    for worse in ({"huge": 0.1}, {"repeated": 0.1}, {"deadline": 5.0}, {"attackers": 0.1}):
        assert not faults(**worse).only_absences

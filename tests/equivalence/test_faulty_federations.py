"""Federations with faults: lost updates are counted and change no other result."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import Columns, starts
from fedrec_flower.models.closed_form import ClosedFormRecommender
from tests.helpers.faulty_runs import (
    CLIENTS,
    CUSTOM,
    MIXED,
    assert_counts_add_up,
    assert_same,
    written,
)

if TYPE_CHECKING:
    from flwr.app import Message

    from tests.helpers.federations import Federate, Federated

KINDS = {
    "dropout": "dropped_out",
    "crash": "crashed",
    "not_a_number": "not_finite",
    "infinite": "not_finite",
    "huge": "huge",
    "wrong_shape": "wrong_shape",
    "wrong_weight": "wrong_weight",
    "repeated": "repeated",
}


# --- every fault ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "fault"),
    # The median needs every single update.
    [*(("fedavg", fault) for fault in KINDS), ("median", "wrong_shape"), ("median", "repeated")],
)
def test_fault_is_counted_and_all_results_are_finite(
    federate: "Federate", strategy: str, fault: str
) -> None:
    words = (f"strategy={strategy}", *CUSTOM, f"faults.{fault}=0.4")
    ran = federate(*words, "federation.num_nodes=2")
    kinds = {kind for lost in ran.watcher.lost.values() for kind in lost}
    assert kinds == {KINDS[fault]}
    assert sum(ran.outcome.failures.values()) == sum(
        sum(n.values()) for n in ran.watcher.lost.values()
    )
    assert_counts_add_up(ran)
    for value in (*ran.shared.values(), *ran.personal.values()):
        assert np.isfinite(value).all()


@pytest.mark.parametrize(
    ("strategy", "faults"),
    [
        ("fedavg", ("not_a_number", "infinite", "huge", "wrong_shape", "wrong_weight", "dropout")),
        ("median", ("not_a_number", "wrong_shape", "dropout")),
    ],
)
def test_excluded_update_equals_a_client_without_a_reply(
    federate: "Federate", strategy: str, faults: tuple[str, ...]
) -> None:
    # One draw decides the fault of a client: the same clients are affected.
    first, *others = (
        federate(f"strategy={strategy}", *CUSTOM, "num_rounds=1", f"faults.{name}=0.4")
        for name in faults
    )
    for other in others:
        # Where clients are only absent, their updates are added up in another order.
        assert other.watcher.losses == pytest.approx(first.watcher.losses, rel=1e-12)
        for name, value in other.shared.items():
            assert_allclose(value, first.shared[name], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strategy", ["fedavg", "median"])
def test_fault_model_with_rates_zero_changes_no_bit(federate: "Federate", strategy: str) -> None:
    one, other = (federate(f"strategy={strategy}", f"faults={name}") for name in ("none", "custom"))
    assert_same(one, other)
    assert one.outcome.failures == {}


def test_duplicate_reply_changes_no_bit(federate: "Federate") -> None:
    one, other = federate(), federate(*CUSTOM, "faults.repeated=0.5")
    assert one.metric_table() == other.metric_table()
    assert other.outcome.failures["repeated"] > 0
    assert one.watcher.replied == other.watcher.replied


# --- repeatability ----------------------------------------------------------------------------


def test_faults_are_equal_to_the_bit_for_the_same_seed(federate: "Federate") -> None:
    one, again, other = (federate(*MIXED, f"seed={seed}") for seed in (1, 1, 2))
    assert_same(one, again)
    assert set(one.outcome.failures) == {"dropped_out", "not_finite", "late"}
    assert one.watcher.lost != other.watcher.lost


@pytest.mark.parametrize("strategy", ["fedavg", "median"])
def test_hosting_does_not_change_faults(federate: "Federate", strategy: str) -> None:
    everything = ("faults.huge=0.1", "faults.wrong_shape=0.1", "faults.attackers=0.2")
    words = (f"strategy={strategy}", *MIXED, *everything, "faults.factor=3.0")
    one, *others = (federate(*words, f"federation.num_nodes={n}") for n in (1, 3, CLIENTS))
    assert_counts_add_up(one)
    for other in others:
        assert other.watcher.lost == one.watcher.lost
        assert other.watcher.replied == one.watcher.replied
        for ours, theirs in ((one.shared, other.shared), (one.personal, other.personal)):
            for name, tensor in ours.items():
                assert_allclose(theirs[name], tensor, rtol=1e-4, atol=1e-5)


def test_fault_of_a_client_does_not_depend_on_the_cohort(federate: "Federate") -> None:
    few, all_ = (
        federate(*MIXED, "num_rounds=1", f"clients_per_round={size}") for size in (10, CLIENTS)
    )
    assert lost_clients(few).items() <= lost_clients(all_).items()


def lost_clients(ran: "Federated") -> dict[int, str]:
    """The failures that every node reported, in all rounds."""
    found: dict[int, str] = {}
    for reply in ran.tap.replies:
        lost: Any = reply.content.config_records.get("lost", {"clients": [], "reasons": []})
        found |= dict(zip(lost["clients"], lost["reasons"], strict=True))
    return found


# --- personal parameters ----------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["not_a_number=0.5", "wrong_shape=0.5", "deadline=15.0"])
def test_lost_update_leaves_personal_parameters_as_trained(
    federate: "Federate", fault: str
) -> None:
    clean = federate("num_rounds=1")
    ran = federate(*CUSTOM, f"faults.{fault}", "num_rounds=1")
    assert 0 < ran.watcher.replied[1] < CLIENTS
    assert written(ran) == set(range(CLIENTS))
    for name, value in clean.personal.items():
        assert_array_equal(ran.personal[name], value)


@pytest.mark.parametrize("fault", ["dropout", "crash"])
def test_absent_client_keeps_its_personal_parameters(federate: "Federate", fault: str) -> None:
    ran = federate(*CUSTOM, f"faults.{fault}=0.5", "num_rounds=1")
    absent = set(lost_clients(ran))
    assert 0 < len(absent) < CLIENTS
    assert written(ran) == set(range(CLIENTS)) - absent


# --- malformed messages of a whole federation -------------------------------------------------


def test_malformed_message_loses_only_the_clients_of_its_node(federate: "Federate") -> None:
    def strip_one(asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        if asked[0].metadata.message_type == "train":
            del replies[0].content["update"]
        return replies

    ran = federate("federation.num_nodes=3", "min_completion=0.1", meddle=strip_one)
    assert set(ran.outcome.failures) == {"malformed"}
    assert_counts_add_up(ran)


def test_reply_delivered_twice_counts_once(federate: "Federate") -> None:
    def repeat(asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        return replies * 2 if asked[0].metadata.message_type == "train" else replies

    ran = federate("federation.num_nodes=3", meddle=repeat)
    assert ran.outcome.failures == {"repeated": 3 * CLIENTS}
    clean = federate("federation.num_nodes=3")
    assert clean.metric_table() == ran.metric_table()


# --- closed-form models, and no federation ----------------------------------------------------


@pytest.mark.parametrize("model", ["popularity", "ease"])
def test_closed_form_model_is_solved_from_the_present_clients(
    federate: "Federate", model: str
) -> None:
    words = (f"model={model}", *CUSTOM, "faults.dropout=0.4", "num_rounds=1")
    ran, split = federate(*words), federate(*words, "federation.num_nodes=3")
    absent = set(lost_clients(ran))
    assert 0 < len(absent) < CLIENTS
    assert_counts_add_up(ran)
    data, exact = ran.setup.data, ran.setup.model
    assert isinstance(exact, ClosedFormRecommender)
    present = [data.client(c).train for c in range(CLIENTS) if c not in absent]
    sizes = np.concatenate([np.diff(history.offsets) for history in present])
    items = np.concatenate([history.item for history in present])
    initial = ran.setup.initial(ran.strategy)
    told = exact.statistics(Columns(starts(sizes), items, None), initial)
    for name, value in exact.solve(told, initial).items():
        assert_allclose(ran.shared[name], value, rtol=1e-4, atol=1e-5)
        assert_allclose(split.shared[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fault", ["huge=0.1", "deadline=5.0", "attackers=0.2", "repeated=0.1"])
def test_update_fault_is_an_error_for_closed_form_models(federate: "Federate", fault: str) -> None:
    complaint = r"^EASE is solved from sums, so its clients can only be absent: keep faults"
    with pytest.raises(ConfigError, match=complaint):
        federate("model=ease", "faults=custom", f"faults.{fault}")


def test_local_only_clients_can_be_absent_or_late_only(
    federate: "Federate",
) -> None:
    words = ("strategy=local_only", *MIXED, "faults.wrong_shape=0.2")
    ran = federate(*words)
    assert set(ran.outcome.failures) == {"dropped_out", "late"}
    assert_counts_add_up(ran)


# --- malicious clients ------------------------------------------------------------------------


def test_scaling_clients_change_the_mean_but_not_the_median(federate: "Federate") -> None:
    attack = ("faults=scaling", "faults.factor=-100.0")

    def led_astray(strategy: str, *rates: str) -> float:
        clean, attacked = (federate(strategy, *rates, *more) for more in ((), attack))
        assert attacked.outcome.failures == {}
        name = "item_embedding.weight"
        return float(np.abs(attacked.shared[name] - clean.shared[name]).max())

    rates = ("strategy.server_optimizer=fedavg", "strategy.server_learning_rate=1.0")
    whole = "strategy.aggregation=all_clients"
    mean, median = (
        led_astray("strategy=fedavg", whole),
        led_astray("strategy=median", *rates, whole),
    )
    assert mean > 10 * median


def test_label_flipping_clients_are_counted_and_change_the_result(federate: "Federate") -> None:
    clean, flipped = federate(), federate("faults=label_flip")
    assert flipped.outcome.failures == {}
    name = "item_embedding.weight"
    assert not np.allclose(clean.shared[name], flipped.shared[name], atol=1e-4)

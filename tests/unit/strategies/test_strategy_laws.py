"""Laws of the round loop: who is asked, when, and what comes of a node that fails."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.data.interactions import Part

if TYPE_CHECKING:
    from flwr.app import Message

    from tests.helpers.federations import Federate, Federated


def asked_clients(ran: "Federated", kind: str) -> dict[int, list[int]]:
    """The clients asked in each round, by all nodes together."""
    found: dict[int, list[int]] = {}
    for message in ran.tap.asked:
        if message.metadata.message_type == kind:
            clients: Any = message.content.config_records["config"]["clients"]
            found.setdefault(int(message.metadata.group_id), []).extend(clients)
    return found


def test_a_cohort_is_as_large_as_asked_distinct_and_another_one_each_round(
    federate: "Federate",
) -> None:
    ran = federate("clients_per_round=7", "num_rounds=4", "federation.num_nodes=3")
    cohorts = asked_clients(ran, "train")
    assert set(cohorts) == {1, 2, 3, 4}
    for cohort in cohorts.values():
        assert len(set(cohort)) == len(cohort) == 7
    assert len({tuple(sorted(cohort)) for cohort in cohorts.values()}) > 1
    counts = np.bincount(np.concatenate(list(cohorts.values())), minlength=24)
    assert ran.outcome.rounds_participated.tolist() == counts.tolist()


def test_cohorts_hang_on_the_seed_and_not_on_who_hosts_whom(federate: "Federate") -> None:
    partial = ("clients_per_round=5", "evaluation.num_clients=6")
    one, many, other = (
        federate(*partial, *more) for more in ((), ("federation.num_nodes=4",), ("seed=2",))
    )
    for kind in ("train", "evaluate"):
        assert asked_clients(one, kind) == asked_clients(many, kind)
    assert asked_clients(one, "train") != asked_clients(other, "train")


def test_every_client_is_sampled_equally_often_in_the_long_run(federate: "Federate") -> None:
    few = ("dataset.num_users=12", "dataset.num_interactions=150", "clients_per_round=3")
    ran = federate(*few, "num_rounds=200", "evaluation.every=1000")
    times = ran.outcome.rounds_participated
    assert times.sum() == 200 * 3
    # A client's count is binomial: 200 draws at 3 / 12.
    assert np.abs(times - 200 * 3 / 12).max() < 4 * np.sqrt(200 * 0.25 * 0.75)


def test_evaluation_comes_before_training_every_few_rounds_and_at_the_end(
    federate: "Federate",
) -> None:
    ran = federate("evaluation.every=2", "num_rounds=5")
    assert list(ran.watcher.metrics) == [0, 2, 4, 5]
    assert list(ran.watcher.losses) == [1, 2, 3, 4, 5]


def test_evaluation_on_a_sample_asks_that_many_and_the_last_one_everybody(
    federate: "Federate",
) -> None:
    ran = federate("evaluation.num_clients=9", "evaluation.every=2", "num_rounds=2")
    assert ran.watcher.num_evaluated == {0: 9, 2: 9}
    assert ran.outcome.selected.num_clients == 24
    assert ran.outcome.selected.num_users == 24


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("strategy", ["fedavg", "local_only"])
def test_the_selected_round_can_be_gone_back_to(
    federate: "Federate", model: str, strategy: str
) -> None:
    ran = federate(
        f"model={model}",
        f"strategy={strategy}",
        "training.learning_rate=3.0",
        "evaluation.every=1",
        "num_rounds=6",
        "federation.num_nodes=2",
    )
    selected = ran.outcome.selected
    scores = {r: m[Part.VALIDATION]["ndcg@10"] for r, m in ran.watcher.metrics.items()}
    assert selected.round == max(scores, key=lambda round_: (scores[round_], -round_))
    assert selected.metrics == ran.watcher.metrics[selected.round]


def test_a_zero_server_rate_leaves_the_parameters(federate: "Federate") -> None:
    ran = federate("strategy.server_learning_rate=0.0")
    initial = ran.setup.initial(ran.strategy)
    for name, value in ran.shared.items():
        assert_array_equal(value, initial[name])


def test_rows_of_clients_that_all_touch_everything_are_averaged_alike(
    federate: "Federate",
) -> None:
    # With so many negatives every client touches every item.
    every = ("training.num_negatives=40", "training.local_epochs=3", "num_rounds=1")
    touched, all_ = (
        federate(*every, f"strategy.aggregation={how}")
        for how in ("touched_clients", "all_clients")
    )
    for name, value in touched.shared.items():
        assert_allclose(value, all_.shared[name], rtol=1e-5, atol=1e-6)


def test_touched_rows_move_at_least_as_far_as_under_the_textbook_mean(
    federate: "Federate",
) -> None:
    touched, all_ = (
        federate("training.num_negatives=1", "num_rounds=1", f"strategy.aggregation={how}")
        for how in ("touched_clients", "all_clients")
    )
    initial = touched.setup.initial(touched.strategy)
    name = "item_embedding.weight"
    far, near = (np.abs(ran.shared[name] - initial[name]) for ran in (touched, all_))
    assert (far >= near * (1 - 1e-5)).all()
    assert (far > near * 1.01).any()


def test_a_cohort_without_training_data_changes_nothing_and_stops_nothing(
    federate: "Federate",
) -> None:
    # Synthetic users come and go: many only after the cut in time.
    ran = federate("split=temporal", "clients_per_round=1", "num_rounds=12")
    losses = ran.watcher.losses
    idle = [round_ for round_, loss in losses.items() if np.isnan(loss)]
    assert 0 < len(idle) < len(losses)
    assert all(np.isfinite(value).all() for value in ran.shared.values())


def test_parameters_are_serialized_once_a_round_however_many_nodes_hear_them(
    federate: "Federate",
) -> None:
    ran = federate("federation.num_nodes=3", "evaluation.every=1", "num_rounds=2")
    carried: dict[int, list[Any]] = {}
    for message in ran.tap.asked:
        kind, content = message.metadata.message_type, message.content
        if kind == "query" or content.config_records["config"].get("note"):
            continue  # no parameters yet, or those of the selected round once more
        # Evaluation of a round and training of the next carry the same parameters.
        round_ = int(message.metadata.group_id) - (kind == "train")
        carried.setdefault(round_, []).append(content.array_records["parameters"])
    assert {round_: len(records) for round_, records in carried.items()} == {0: 6, 1: 6, 2: 3}
    assert all(record is records[0] for records in carried.values() for record in records)


def test_bytes_down_are_those_of_the_parameters(federate: "Federate") -> None:
    ran = federate()
    size = sum(value.nbytes for value in ran.shared.values())
    assert size <= ran.outcome.bytes_down < size + 500 * len(ran.shared)


def serialized_updates(ran: "Federated") -> list[int]:
    """Bytes of the arrays in each training reply, as they travel."""
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    records = [reply.content.array_records["update"] for reply in replies]
    return [sum(len(array.data) for array in record.values()) for record in records]


@pytest.mark.parametrize("negatives", [1, 40])  # a few rows, and rows enough for whole tables
def test_bytes_up_are_what_a_client_alone_on_its_node_sends(
    federate: "Federate", negatives: int
) -> None:
    work = ("clients_per_round=10", f"training.num_negatives={negatives}")
    alone, together = (federate(*work, f"federation.num_nodes={n}") for n in (24, 2))
    sent = serialized_updates(alone)
    assert len(sent) == 10 * 3  # clients times rounds
    assert alone.outcome.bytes_up == together.outcome.bytes_up == round(sum(sent) / len(sent))


def test_few_touched_rows_are_fewer_bytes_than_the_parameters(federate: "Federate") -> None:
    few, many = (federate(f"training.num_negatives={n}").outcome.bytes_up for n in (1, 40))
    assert few < many


def test_where_nothing_is_shared_nothing_is_sent(federate: "Federate") -> None:
    ran = federate("strategy=local_only")
    assert sum(serialized_updates(ran)) == ran.outcome.bytes_up == 0


def test_a_run_of_no_rounds_evaluates_the_untrained_model(federate: "Federate") -> None:
    ran = federate("num_rounds=0")
    assert list(ran.watcher.metrics) == [0]
    assert ran.outcome.selected.round == 0
    assert ran.outcome.rounds_participated.sum() == 0


def test_the_order_in_which_nodes_answer_does_not_matter_to_the_bit(federate: "Federate") -> None:
    nodes = ("federation.num_nodes=6", "num_rounds=4", "strategy.aggregation=all_clients")
    one, other = (
        federate(*nodes, meddle=meddle) for meddle in (None, lambda _, replies: replies[::-1])
    )
    assert one.watcher.losses == other.watcher.losses
    assert one.metric_table() == other.metric_table()
    for name, value in one.shared.items():
        assert_array_equal(value, other.shared[name])


@pytest.mark.parametrize("secure", ["none", "secagg"])
def test_every_node_is_waited_for_as_long_as_asked(federate: "Federate", secure: str) -> None:
    nodes = (f"secure_aggregation={secure}", "federation.num_nodes=4")
    ran = federate(*nodes, "reply_timeout=7.5", "checkpoint_every=1", "num_rounds=1")
    assert set(ran.tap.timeouts) == {7.5}


# --- what can go wrong ------------------------------------------------------------------------


def test_where_everybody_diverges_the_mend_is_named(federate: "Federate") -> None:
    message = r"^round 1: no client's loss is finite; lower training\.learning_rate"
    with pytest.raises(TrainingError, match=message):
        federate("training.learning_rate=1e30", "training.local_epochs=20")


@pytest.mark.parametrize(("model", "rate"), [("mf", 2.0), ("pfedrec", 100)])
def test_who_diverges_is_left_out_and_harms_nobody(
    federate: "Federate", caplog: pytest.LogCaptureFixture, model: str, rate: float
) -> None:
    words = (
        *(f"model={model}", f"training.learning_rate={rate}", "num_rounds=2", "min_completion=0.1"),
        *("partition=silo_quantity", "partition.num_clients=6"),  # the larger, the more steps
        *("training.local_epochs=20", "training.batch_size=4", "training.loss=mse"),
    )
    runs = [federate(*words, f"federation.num_nodes={nodes}") for nodes in (1, 3)]
    for ran in runs:
        assert 0 < ran.outcome.failures["not_finite"] < 2 * 6
        for table in (*ran.shared.values(), *ran.personal.values()):
            assert np.isfinite(table).all()
    assert "not_finite: the loss" in caplog.text
    one, other = (ran.shared for ran in runs)  # whoever is hosted beside them
    for name, value in one.items():
        assert_allclose(value, other[name], rtol=1e-4, atol=1e-5)


def test_who_diverges_keeps_nothing_of_it(federate: "Federate") -> None:
    ran = federate(
        *("strategy=scaffold", "model=mf", "num_rounds=2", "min_completion=0.1"),
        *("partition=silo_quantity", "partition.num_clients=6", "training.loss=mse"),
        *("training.learning_rate=2.0", "training.local_epochs=20", "training.batch_size=4"),
    )
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    records: list[Any] = [reply.content.config_records["lost"] for reply in replies]
    always = set.intersection(*(set(record["clients"]) for record in records))
    assert 0 < len(always) < 6
    control = np.load(ran.store / "current" / "control.item_embedding.weight.npy")
    assert [*np.flatnonzero(~control.any((1, 2)))] == sorted(always)


def test_parameters_that_are_no_longer_finite_are_named(federate: "Federate") -> None:
    message = r"round 1: item_\w+\.weight is no longer finite"
    with np.errstate(over="ignore"), pytest.raises(TrainingError, match=message):
        federate("strategy.server_learning_rate=1e39")


def is_training(asked: "list[Message]") -> bool:
    return any(message.metadata.message_type == "train" for message in asked)


def test_the_clients_of_a_silent_node_are_counted_and_the_round_counts(
    federate: "Federate",
) -> None:
    def lose_one(asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        return replies[1:] if is_training(asked) else replies

    ran = federate("federation.num_nodes=3", "min_completion=0.1", meddle=lose_one)
    for round_, replied in ran.watcher.replied.items():
        lost = ran.watcher.lost[round_]
        assert set(lost) == {"silent"}
        assert replied + lost["silent"] == ran.setup.plan.clients_per_round


def test_too_few_replies_fail_the_run_after_all_retries(federate: "Federate") -> None:
    def lose_one(asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        return replies[1:] if is_training(asked) else replies

    message = r"round 1: fewer than 100% of the cohort replied soundly, 3 times over"
    with pytest.raises(TrainingError, match=message):
        federate("federation.num_nodes=3", "min_completion=1", "max_retries=2", meddle=lose_one)

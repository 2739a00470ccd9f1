"""The asynchronous schedule by hand and by laws, and FedBuff in a federation."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.random import generator
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.fedbuff import AsyncSchedule, Duration, FedBuff
from fedrec_flower.threats.latency import latency

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

NUM_CLIENTS = 12


def fixed(seconds: list[float]) -> Duration:
    """Training times that are the same at every dispatch."""
    return lambda clients, _round, _count: np.array(seconds)[clients]


def uneven(clients: NDArray[np.int64], round_: int, count: int) -> NDArray[np.float64]:
    """Training times in whole seconds, drawn at every dispatch, so that some replies coincide."""
    return generator(7, "pace", round_, count).integers(1, 5, len(clients)).astype(np.float64)


def test_schedule_of_two_clients_by_hand() -> None:
    schedule = AsyncSchedule(1, 2, 2, fixed([1.0, 3.0]))
    found = []
    for round_ in range(1, 5):
        [client], [given_] = schedule.collect(1, round_)
        found.append((client, given_, schedule.now))
    # Both are dispatched at 0; client 0 replies at 1, 2 and 3, client 1 at 3.
    assert found == [(0, 0, 1.0), (0, 1, 2.0), (0, 2, 3.0), (1, 0, 3.0)]


@given(
    concurrency=st.integers(1, NUM_CLIENTS),
    count=st.integers(1, NUM_CLIENTS),
    seed=st.integers(0, 2**32),
)
def test_time_increases_and_no_client_trains_twice_at_once(
    concurrency: int, count: int, seed: int
) -> None:
    schedule, before = AsyncSchedule(seed, NUM_CLIENTS, concurrency, uneven), 0.0
    for round_ in range(1, 9):
        buffer, given_ = schedule.collect(count, round_)
        assert len(buffer) == count == len(np.unique(buffer))
        assert (given_ < round_).all()
        assert len(schedule.clients) <= concurrency
        assert len(np.unique(schedule.clients)) == len(schedule.clients)
        assert not set(schedule.clients.tolist()) & set(buffer.tolist())
        assert schedule.now >= before
        assert (schedule.finish_time >= schedule.now).all()
        before = schedule.now


@given(concurrency=st.integers(1, NUM_CLIENTS), seed=st.integers(0, 2**32))
def test_equal_training_times_give_the_cohorts_of_fedavg(concurrency: int, seed: int) -> None:
    schedule = AsyncSchedule(seed, NUM_CLIENTS, concurrency, fixed([2.0] * NUM_CLIENTS))
    for round_ in range(1, 5):
        buffer, given_ = schedule.collect(concurrency, round_)
        rng = generator(seed, "cohort", round_)
        cohort = np.sort(rng.choice(NUM_CLIENTS, concurrency, replace=False))
        assert_array_equal(buffer, cohort)
        assert_array_equal(given_, np.full(concurrency, round_ - 1))
        assert schedule.now == 2.0 * round_


@given(seed=st.integers(0, 2**32), after=st.integers(0, 4))
def test_restored_schedule_continues_without_a_difference(seed: int, after: int) -> None:
    one = AsyncSchedule(seed, NUM_CLIENTS, 5, uneven)
    for round_ in range(1, after + 1):
        one.collect(3, round_)
    other = AsyncSchedule(seed, NUM_CLIENTS, 5, uneven)
    other.restore(one.state())
    for round_ in range(after + 1, after + 4):
        for ours, theirs in zip(one.collect(3, round_), other.collect(3, round_), strict=True):
            assert_array_equal(ours, theirs)
        assert one.now == other.now


# --- in a federation --------------------------------------------------------------------------

PLAIN = ("strategy.server_optimizer=fedavg", "strategy.server_learning_rate=1.0")
ALIKE = ("dataset.activity_sigma=0.0", "dataset.num_interactions=384")  # 16 interactions each


def fedbuff(federate: "Federate", *overrides: str) -> "Federated":
    return federate("strategy=fedbuff", *PLAIN, *overrides)


def fedbuff_of(ran: "Federated") -> FedBuff:
    assert isinstance(ran.strategy, FedBuff)
    return ran.strategy


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("cohort", [10, 24])
def test_fedbuff_with_equal_times_and_a_full_buffer_equals_fedavg(
    federate: "Federate", model: str, cohort: int
) -> None:
    alike = (f"model={model}", *ALIKE, f"clients_per_round={cohort}")
    ran = fedbuff(federate, *alike, f"strategy.buffer_size={cohort}", "strategy.latency_spread=0.0")
    plain = federate(*alike)
    for name, value in plain.shared.items():
        assert_allclose(ran.shared[name], value, atol=1e-6)
    for name, value in plain.personal.items():
        assert_allclose(ran.personal[name], value, atol=1e-6)
    for key, metric in plain.metric_table().items():
        assert ran.metric_table()[key] == pytest.approx(metric, abs=1e-6)
    assert_array_equal(ran.outcome.rounds_participated, plain.outcome.rounds_participated)
    # 14 of 16 interactions are for training.
    assert [more["simulated_seconds"] for more in ran.watcher.more.values()] == pytest.approx(
        [0.01 * 14, 0.02 * 14, 0.03 * 14]
    )


def test_stale_client_trains_from_the_parameters_of_its_dispatch(federate: "Federate") -> None:
    # All 24 clients are dispatched at 0; the buffer holds ten, so fourteen replies are stale.
    chosen = ("strategy.buffer_size=10", "num_rounds=2", "evaluation.every=1")
    ran = fedbuff(federate, "model=mf", *chosen, "strategy.staleness_exponent=0.0")
    trained = [m for m in ran.tap.asked if m.metadata.message_type == "train"]
    first, second = (
        {n: a.numpy() for n, a in m.content.array_records["parameters"].items()} for m in trained
    )
    versions: Any = trained[1].content.config_records["config"]["versions"]
    assert set(versions) == {0, 1}
    initial = ran.setup.initial(ran.strategy)
    for name, value in initial.items():
        assert_array_equal(first[name], value)
        assert_array_equal(second[name][0], value)
        assert not np.array_equal(second[name][1], value)


def test_stale_reply_is_scaled_by_the_root_of_its_staleness(federate: "Federate") -> None:
    ran = fedbuff(federate, "model=mf", "strategy.buffer_size=4")
    strategy = fedbuff_of(ran)
    strategy._staleness[:] = 0
    strategy._staleness[[3, 5]] = [3, 8]
    value = np.ones((4, 1), np.float32)
    rows = np.array([7, 7, 7, 2])
    sent = Updates(
        np.array([1, 3, 5]),
        np.array([2.0, 1.0, 1.0]),
        np.array([0, 1, 2, 4]),
        rows,
        {"item_bias.weight": value},
    )
    shape = ran.shared["item_bias.weight"].shape
    combined = strategy.aggregate(sent, {"item_bias.weight": shape})["item_bias.weight"][:, 0]
    assert combined[7] == pytest.approx((2 * 1 + 1 * 1 / 2 + 1 * 1 / 3) / 4)
    assert combined[2] == pytest.approx(1 / 3)


def test_buffer_takes_less_simulated_time_than_full_cohorts(federate: "Federate") -> None:
    ran = fedbuff(
        federate, "model=mf", "num_rounds=12", "clients_per_round=8", "strategy.buffer_size=4"
    )
    plan, clock = ran.setup.plan, [m["simulated_seconds"] for m in ran.watcher.more.values()]
    assert (np.diff(clock) >= 0).all()
    waiting = 0.0
    for round_ in range(1, 7):  # as many replies in cohorts of eight
        cohort = np.sort(generator(1, "cohort", round_).choice(24, 8, replace=False))
        examples = plan.num_examples[cohort]
        waiting += 0.01 * latency(1, cohort, examples, round_, 0, 0.5).max()
    assert clock[-1] < waiting


def test_fast_clients_reply_more_often(federate: "Federate") -> None:
    ran = fedbuff(
        federate,
        "model=mf",
        "num_rounds=40",
        "evaluation.every=40",
        "strategy.buffer_size=3",
        "dataset.activity_sigma=1.5",
    )
    often, examples = ran.outcome.rounds_participated, ran.setup.plan.num_examples
    order = np.argsort(examples)
    assert often[order[:8]].sum() > often[order[-8:]].sum()


def test_restored_state_equals_the_saved_state(federate: "Federate") -> None:
    ran = fedbuff(federate, "model=mf", "clients_per_round=10", "strategy.buffer_size=4")
    one = fedbuff_of(ran)
    state = one.state()
    assert len(state["schedule/clients"]) + 4 >= 10
    other = again(ran)
    other.restore(state)
    assert set(other.state()) == set(state)
    for name, value in other.state().items():
        assert_array_equal(value, state[name])
    assert list(next(iter(other._sent_parameters.values()))) == list(ran.shared)


def again(ran: "Federated") -> FedBuff:
    """The same strategy before its first round."""
    node = {
        "_target_": "fedrec_flower.strategies.FedBuff",
        "aggregation": "touched_clients",
        "weighting": "examples",
        "buffer_size": 4,
        "staleness_exponent": 0.5,
        "latency_spread": 0.5,
        "seconds_per_example": 0.01,
        "server_optimizer": "fedavg",
        "server_learning_rate": 1.0,
        "beta1": 0.9,
        "beta2": 0.99,
        "tau": 0.001,
    }
    made: FedBuff = build("strategy", node, info=ran.setup.info())
    return made


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("strategy.buffer_size=25", r"buffer_size=25 is impossible: choose between 1 and 24"),
        ("strategy.buffer_size=0", r"buffer_size=0 is impossible: choose between 1 and 24"),
        (
            "strategy.staleness_exponent=-1.0",
            r"staleness_exponent=-1\.0 is impossible: give 0 or more",
        ),
        ("strategy.latency_spread=-1.0", r"latency_spread=-1\.0 is impossible: give 0 or more"),
        (
            "strategy.seconds_per_example=0.0",
            r"seconds_per_example=0\.0 is impossible: give more than 0",
        ),
    ],
)
def test_value_out_of_range_is_an_error(
    federate: "Federate", override: str, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        fedbuff(federate, "model=mf", override)

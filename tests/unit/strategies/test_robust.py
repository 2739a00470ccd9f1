"""Laws of the robust strategies and of the server optimizers, in small federations."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.robust import Median

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

PLAIN = ("strategy.server_optimizer=fedavg", "strategy.server_learning_rate=1.0")
EVERY_AGGREGATION = pytest.mark.parametrize("aggregation", ["all_clients", "touched_clients"])


@EVERY_AGGREGATION
@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize(
    "robust",
    [
        ("strategy=trimmed_mean", "strategy.trim=0.0", *PLAIN),
        ("strategy=multi_krum", "strategy.byzantine_share=0.0", *PLAIN),
        ("strategy=norm_bound", "strategy.bound=1e9", *PLAIN),
        ("strategy=reptile", "strategy.server_learning_rate=1.0"),
        ("strategy=fedavgm", "strategy.momentum=0.0", "strategy.server_learning_rate=1.0"),
    ],
    ids=lambda words: words[0].partition("=")[2],
)
def test_strategy_without_exclusion_or_scaling_equals_fedavg(
    federate: "Federate", robust: tuple[str, ...], model: str, aggregation: str
) -> None:
    same = (f"model={model}", f"strategy.aggregation={aggregation}")
    plain, other = federate("strategy=fedavg", *same), federate(*robust, *same)
    for name, value in plain.shared.items():
        assert_allclose(other.shared[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_server_optimizer_equals_the_strategy_of_its_name(
    federate: "Federate", optimizer: str
) -> None:
    rates = {"beta1": 0.8, "beta2": 0.95, "tau": 0.01, "momentum": 0.8}
    settings = {
        "fedavg": (),
        "fedavgm": ("momentum",),
        "fedadagrad": ("beta1", "tau"),
    }.get(optimizer, ("beta1", "beta2", "tau"))
    rate = "strategy.server_learning_rate=0.05"
    strategy = federate(
        f"strategy={optimizer}", rate, *(f"strategy.{name}={rates[name]}" for name in settings)
    )
    robust = federate(
        "strategy=trimmed_mean",
        "strategy.trim=0.0",
        f"strategy.server_optimizer={optimizer}",
        rate,
        *(f"strategy.{name}={rates[name]}" for name in ("beta1", "beta2", "tau")),
    )
    for name, value in strategy.shared.items():
        assert_allclose(robust.shared[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm", "fedadam", "median"])
def test_restored_strategy_takes_the_same_step(federate: "Federate", strategy: str) -> None:
    ran, fresh = federate(f"strategy={strategy}"), federate(f"strategy={strategy}", "seed=2")
    state = ran.strategy.state()
    assert bool(state) == (strategy != "fedavg")
    fresh.strategy.restore(state)
    update = {name: np.ones_like(value) for name, value in ran.shared.items()}
    one, other = (s.strategy.server_step(ran.shared, update) for s in (ran, fresh))
    for name, value in one.items():
        assert_array_equal(value, other[name])


def test_clients_without_training_data_are_left_out(federate: "Federate") -> None:
    ran = federate("strategy=median", *PLAIN, "strategy.aggregation=all_clients")
    strategy = ran.strategy
    assert isinstance(strategy, Median)
    rows, shape = np.array([3, 3, 3]), ran.shared["item_embedding.weight"].shape
    sent = {"item_embedding.weight": np.ones((3, shape[1]), np.float32)}
    clients, weights = np.arange(7), np.array([0, 4, 0, 1, 2, 0, 0], np.float64)
    updates = Updates(clients, weights, np.array([0, 0, 1, 1, 2, 3, 3, 3]), rows, sent)
    aggregated = strategy.aggregate(updates, {"item_embedding.weight": shape})
    assert np.unique(aggregated["item_embedding.weight"][3]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            ("strategy=krum", "strategy.byzantine_share=0.4", "clients_per_round=10"),
            "11 clients to tolerate 4 malicious ones and a cohort has 10: raise clients_per_round "
            "or lower strategy.byzantine_share=0.4",
        ),
        (
            ("strategy=bulyan", "strategy.byzantine_share=0.2", "clients_per_round=10"),
            "needs 11 clients to tolerate 2 malicious ones and a cohort has 10: raise",
        ),
        (("strategy=multi_krum", "clients_per_round=2"), "3 clients to tolerate 0 malicious"),
        (("strategy=krum", "strategy.byzantine_share=0.5"), r"must be in \[0, 0.5\): 0.5"),
        (("strategy=bulyan", "strategy.byzantine_share=0.25"), r"must be in \[0, 0.25\): 0.25"),
        (
            ("strategy=trimmed_mean", "strategy.trim=0.5"),
            r"strategy\.trim=0\.5 is impossible: give less than 0\.5",
        ),
        (
            ("strategy=norm_bound", "strategy.bound=0.0"),
            r"bound=0\.0 is impossible: give more than 0",
        ),
        (
            ("strategy=fedavgm", "strategy.momentum=1.0"),
            r"momentum=1\.0 is impossible: give less than 1",
        ),
        (("strategy=fedyogi", "strategy.tau=0.0"), r"tau=0\.0 is impossible: give more than 0"),
        (("strategy=median", "strategy.beta1=-0.1"), r"beta1=-0\.1 is impossible: give 0 or more"),
        (("strategy=median", "strategy.server_optimizer=sgd"), "strategy.server_optimizer='sgd'"),
    ],
)
def test_value_out_of_range_is_an_error_before_the_first_round(
    federate: "Federate", overrides: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        federate(*overrides)

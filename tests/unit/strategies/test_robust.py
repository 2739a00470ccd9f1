"""Laws of the robust strategies and of the server's step, in small federations."""

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
EVERY_HOW = pytest.mark.parametrize("how", ["all_clients", "touched_clients"])


@EVERY_HOW
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
def test_what_leaves_nobody_out_and_bends_nothing_is_fedavg(
    federate: "Federate", robust: tuple[str, ...], model: str, how: str
) -> None:
    same = (f"model={model}", f"strategy.aggregation={how}")
    plain, other = federate("strategy=fedavg", *same), federate(*robust, *same)
    for name, value in plain.shared.items():
        assert_allclose(other.shared[name], value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"])
def test_a_server_optimizer_is_the_strategy_of_its_name(
    federate: "Federate", optimizer: str
) -> None:
    rates = {"beta1": 0.8, "beta2": 0.95, "tau": 0.01, "momentum": 0.8}
    own = {
        "fedavg": (),
        "fedavgm": ("momentum",),
        "fedadagrad": ("beta1", "tau"),
    }.get(optimizer, ("beta1", "beta2", "tau"))
    rate = "strategy.server_learning_rate=0.05"
    strategy = federate(
        f"strategy={optimizer}", rate, *(f"strategy.{name}={rates[name]}" for name in own)
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
def test_what_a_strategy_keeps_can_be_put_back(federate: "Federate", strategy: str) -> None:
    ran, fresh = federate(f"strategy={strategy}"), federate(f"strategy={strategy}", "seed=2")
    state = ran.strategy.state()
    assert bool(state) == (strategy != "fedavg")
    fresh.strategy.restore(state)
    update = {name: np.ones_like(value) for name, value in ran.shared.items()}
    one, other = (s.strategy.server_step(ran.shared, update) for s in (ran, fresh))
    for name, value in one.items():
        assert_array_equal(value, other[name])


def test_clients_that_learnt_from_nothing_have_no_vote(federate: "Federate") -> None:
    ran = federate("strategy=median", *PLAIN, "strategy.aggregation=all_clients")
    strategy = ran.strategy
    assert isinstance(strategy, Median)
    rows, shape = np.array([3, 3, 3]), ran.shared["item_embedding.weight"].shape
    said = {"item_embedding.weight": np.ones((3, shape[1]), np.float32)}
    clients, weights = np.arange(7), np.array([0, 4, 0, 1, 2, 0, 0], np.float64)
    updates = Updates(clients, weights, np.array([0, 0, 1, 1, 2, 3, 3, 3]), rows, said)
    heard = strategy.aggregate(updates, {"item_embedding.weight": shape})
    assert np.unique(heard["item_embedding.weight"][3]).tolist() == [1.0]


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (
            ("strategy=krum", "strategy.byzantine_share=0.4", "clients_per_round=10"),
            "11 clients outvote 4 liars and a cohort has 10: raise clients_per_round or lower "
            "strategy.byzantine_share=0.4",
        ),
        (
            ("strategy=bulyan", "strategy.byzantine_share=0.2", "clients_per_round=10"),
            "11 clients outvote 2 liars and a cohort has 10: raise",
        ),
        (("strategy=multi_krum", "clients_per_round=2"), "3 clients outvote 0 liars"),
        (("strategy=krum", "strategy.byzantine_share=0.5"), r"must be in \[0, 0.5\): 0.5"),
        (("strategy=bulyan", "strategy.byzantine_share=0.25"), r"must be in \[0, 0.25\): 0.25"),
        (("strategy=trimmed_mean", "strategy.trim=0.5"), r"strategy.trim must be in \[0, 0.5\)"),
        (("strategy=norm_bound", "strategy.bound=0.0"), "strategy.bound must be above 0 or null"),
        (("strategy=fedavgm", "strategy.momentum=1.0"), r"strategy.momentum must be in \[0, 1\)"),
        (("strategy=fedyogi", "strategy.tau=0.0"), "strategy.tau must be above 0"),
        (("strategy=median", "strategy.beta1=-0.1"), r"strategy.beta1 must be in \[0, 1\)"),
        (("strategy=median", "strategy.server_optimizer=sgd"), "strategy.server_optimizer='sgd'"),
    ],
)
def test_what_cannot_be_is_refused_before_a_round(
    federate: "Federate", overrides: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        federate(*overrides)

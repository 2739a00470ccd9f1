"""The server optimizer of a strategy's configuration, and the strategies that are FedOpt."""

from typing import TYPE_CHECKING

import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.strategies.aggregators.server_optimizers import (
    Adagrad,
    Adam,
    Average,
    Momentum,
    Name,
    ServerOptimizer,
    Yogi,
)
from fedrec_flower.strategies.fedopt import FedOpt

if TYPE_CHECKING:
    from tests.helpers.federations import Federate


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fedavg", Average(0.1)),
        ("fedavgm", Momentum(0.1, 0.2)),
        ("fedadagrad", Adagrad(0.1, 0.2, 0.4)),
        ("fedadam", Adam(0.1, 0.2, 0.4, 0.3)),
        ("fedyogi", Yogi(0.1, 0.2, 0.4, 0.3)),
    ],
)
def test_settings_name_the_server_optimizer(name: Name, expected: ServerOptimizer) -> None:
    assert ServerOptimizer.from_settings(name, 0.1, 0.2, 0.3, 0.4) == expected


def test_server_optimizer_group_sets_the_optimizer_of_a_strategy(federate: "Federate") -> None:
    by_group = federate("strategy=fedprox", "server_optimizer@strategy=fedavg", "strategy.mu=0.0")
    assert isinstance(by_group.strategy, FedOpt)
    assert by_group.strategy.server_optimizer == Average(1.0)
    by_strategy = federate("strategy=fedavg")
    for name, value in by_strategy.shared.items():
        assert_array_equal(by_group.shared[name], value)

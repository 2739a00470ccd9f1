"""The state of a node between stages of secure aggregation survives a change of worker."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

pytestmark = [
    pytest.mark.slow,
    # Ray leaves the log files of the processes it starts to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

WORDS = ("clients_per_round=20", "num_rounds=2", "evaluation.every=1", "federation.num_nodes=5")


def test_five_nodes_on_two_workers_equal_five_in_process(make_run: "MakeRun") -> None:
    secure = (*WORDS, "secure_aggregation=secagg")
    one = make_run(*secure)
    other = make_run(*secure, "federation=simulation", "federation.num_cpus=1")
    expected, simulated = one.table("rounds"), other.table("rounds")
    keys = ["round", "phase", "metric", "num_clients"]
    assert simulated[keys].equals(expected[keys])
    assert list(simulated["value"]) == list(expected["value"])  # no key has left a trace

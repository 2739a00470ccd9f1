"""Flower's simulation gives the same results as the in-process transport.

They are equal to the byte with the same number of nodes, otherwise up to rounding.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

from tests.helpers.golden_runs import GOLDEN, TOLERANCE, machine

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

pytestmark = [
    pytest.mark.slow,
    # Ray leaves the log files of the processes it starts to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]

WORDS = ("clients_per_round=20", "num_rounds=3", "evaluation.every=1")
GOLDEN_TABLES = Path(__file__).parents[1] / "data" / "golden_simulation"
GOLDEN_WORDS = (
    *("dataset=synthetic", "dataset.num_users=24", "dataset.num_items=40"),
    *("dataset.num_interactions=400", "federation=simulation", "federation.num_nodes=2"),
    *("num_rounds=2", "clients_per_round=8", "evaluation.every=1"),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a Ray cluster, started once for all tests here."""
    from ray.cluster_utils import Cluster

    started: Any = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False}
    )
    yield started.address
    started.shutdown()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mf", ("model=mf",)),
        ("ease", ("model=ease",)),
        ("scaffold", ("model=ncf", "strategy=scaffold", "training.optimizer=sgd")),
    ],
)
def test_simulated_golden_run_gives_the_committed_rounds(
    make_run: "MakeRun", cluster: str, cache: Path, name: str, words: tuple[str, ...]
) -> None:
    """The tables are of runs in process with the same nodes."""
    here = (f"dataset.cache_dir={cache}", f"federation.address={cluster}")
    run = make_run(*GOLDEN_WORDS, *here, base=words)
    expected = GOLDEN_TABLES / f"{name}.csv"
    if json.loads(GOLDEN.read_text())["machine"] == machine():
        assert (run.folder / "rounds.csv").read_bytes() == expected.read_bytes()
    table, wanted = run.table("rounds"), pd.read_csv(expected)
    keys = ["round", "phase", "metric", "num_clients"]
    assert table[keys].equals(wanted[keys])
    assert list(table["value"]) == pytest.approx(list(wanted["value"]), rel=TOLERANCE, nan_ok=True)


@pytest.mark.parametrize(("model", "num_nodes"), [("mf", 1), ("mf", 2), ("mf", 3), ("ncf", 2)])
def test_simulation_equals_in_process_to_the_byte_and_other_hosting_to_rounding(
    make_run: "MakeRun", cluster: str, model: str, num_nodes: int
) -> None:
    """Item 17: the same numbers, to the byte or up to rounding."""
    engine = ("federation=simulation", f"federation.address={cluster}")
    words = (*WORDS, f"model={model}")
    nodes = f"federation.num_nodes={num_nodes}"
    one, same, other = (make_run(*words, *more) for more in ((), (nodes,), (*engine, nodes)))
    for table in ("rounds.csv", "per_user.csv"):
        assert (other.folder / table).read_bytes() == (same.folder / table).read_bytes()
    expected, simulated = one.table("rounds"), other.table("rounds")
    keys = ["round", "phase", "metric", "num_clients"]
    assert simulated[keys].equals(expected[keys])
    assert list(simulated["value"]) == pytest.approx(list(expected["value"]), abs=5e-7)
    assert other.table("per_user").equals(one.table("per_user"))
    assert other.summary["federation"] == "simulation"


def test_private_simulation_equals_private_in_process_run_with_its_secret(
    make_run: "MakeRun", cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Item 1: the server knows no draw of a client."""
    from fedrec_flower.core.random import Secret
    from fedrec_flower.experiment.run_folder import RunFolder
    from fedrec_flower.federation.client import node

    words = (*WORDS, "model=mf", "randomness=private")
    engine = ("federation=simulation", f"federation.address={cluster}", "federation.num_nodes=3")
    with monkeypatch.context() as patch:  # or the secret would be gone with the run
        patch.setattr(RunFolder, "tidy", lambda _: None)
        simulated = make_run(*words, *engine)
    secret = Secret((simulated.folder / "clients" / "secret").read_bytes())
    monkeypatch.setattr(node, "node_secret", lambda _: secret)
    one, other = make_run(*words), make_run(*words, "seed=2")
    assert one.table("per_user").equals(simulated.table("per_user"))
    expected = pytest.approx(list(one.table("rounds")["value"]), abs=1e-5)
    assert list(simulated.table("rounds")["value"]) == expected
    assert list(other.table("rounds")["value"]) != expected


def test_error_of_a_simulated_node_is_raised(make_run: "MakeRun", cluster: str) -> None:
    from fedrec_flower.core.errors import TrainingError

    engine = ("federation=simulation", f"federation.address={cluster}", "federation.num_nodes=2")
    with pytest.raises(TrainingError, match=r"a node failed: .*a score is not finite; lower"):
        make_run(*engine, "model.init_std=1e30")

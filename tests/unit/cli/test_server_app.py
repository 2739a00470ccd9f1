"""The ServerApp that `flwr run` starts is the same experiment as the command line's."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from fedrec_flower.cli.server_app import app
from fedrec_flower.core.errors import ConfigError, FedrecError
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import prepare_data, run
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.client.deployed import app as client_app
from fedrec_flower.federation.transport.in_process import InProcessGrid
from fedrec_flower.reports.load import load_per_user, load_runs
from fedrec_flower.reports.settings import parse

Own = dict[str, bool | int | float | str]
Deploy = Callable[..., Path]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The overrides of a run in seconds."""
    cache = tmp_path_factory.mktemp("cache")
    return ["experiment=smoke", "num_rounds=2", f"dataset.cache_dir={cache}"]


@pytest.fixture(scope="module")
def prepared(words: list[str]) -> Path:
    """The folder of the prepared data that nodes and server have in common."""
    return prepare_data(compose(words)[0]).path


@pytest.fixture
def deploy(words: list[str], prepared: Path, tmp_path: Path) -> Deploy:
    """Run the ServerApp over three deployed nodes in this process; returns the run folder."""

    def started(*overrides: str, ids: tuple[int, ...] = (0, 1, 2), **own: object) -> Path:
        folder = tmp_path / "run"
        told = [*words, f"output_dir={folder}", "federation.patience=0.0", *overrides]
        context = Context(
            run_id=1,
            node_id=0,
            node_config={},
            state=RecordDict(),
            run_config={"overrides": shlex.join(told)},
        )
        known = {"prepared": str(prepared), "store": str(tmp_path / "nodes"), **own}
        grid = InProcessGrid(client_app, len(ids), known)  # type: ignore[arg-type]  # wrong on purpose, at times
        for node, number in zip(grid._contexts.values(), ids, strict=True):
            node.node_config |= {"partition-id": number, "num-partitions": 3}
        app(grid=grid, context=context)
        return folder

    return started


def test_server_app_runs_an_experiment_over_the_given_grid(deploy: Deploy) -> None:
    folder = deploy("num_rounds=1")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["federation"]) == ("completed", "deployment")
    assert "hr@10" in summary["test"]
    assert summary["randomness"] == "private"
    assert parse((folder / "config.yaml").read_text())["federation.name"] == "deployment"
    assert (folder / "flower.log").is_file()
    assert set(load_runs(folder)["phase"]) == {"train", "validation", "test"}


def test_item_21_data_of_users_stay_on_deployed_nodes(deploy: Deploy, tmp_path: Path) -> None:
    folder = deploy("num_rounds=0")
    names = {path.name for path in folder.iterdir()}
    assert not names & {"clients", "per_user.csv", "recommendations.csv", "clients.csv"}
    assert list((tmp_path / "nodes").glob("*/notes/*.npy"))
    assert load_per_user(folder).empty


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [
        ((0, 1), r"no node hosts clients \d+ to 59 of 60 \(2 nodes answered\): start the nodes"),
        ((1, 2), r"no node hosts clients 0 to \d+ of 60 \(2 nodes answered\): start the nodes"),
        ((0, 1, 1), r"two nodes host client \d+: give every node a partition-id of its own"),
        ((0, 1, 2, 0), r"two nodes host client 0: give every node a partition-id of its own"),
        ((0, 1, 3), r"a node has partition-id=3 and num-partitions=3"),
    ],
)
def test_item_21_missing_overlapping_or_duplicate_nodes_are_errors(
    deploy: Deploy, tmp_path: Path, ids: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(FedrecError, match=complaint):
        deploy(ids=ids)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


def test_item_21_secure_aggregation_counts_the_registered_nodes(deploy: Deploy) -> None:
    assert deploy("secure_aggregation=secagg", "num_rounds=1").is_dir()


def test_item_21_deployment_refuses_another_transport(deploy: Deploy) -> None:
    with pytest.raises(ConfigError, match="federation=simulation cannot be chosen"):
        deploy("federation=simulation")


def test_deployment_requires_flwr_run(words: list[str], tmp_path: Path) -> None:
    config, _ = compose([*words, "federation=deployment"])
    with pytest.raises(ConfigError, match="federation=deployment does not fit"):
        run(config, RunFolder.create(tmp_path / "run"))

"""A third-party package adds classes, metrics and yaml through entry points only."""

import hashlib
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from fedrec_flower.reports.load import load_runs, load_summaries

Start = Callable[..., "subprocess.Popen[str]"]

FILES = {
    "fedrec_toy/__init__.py": "",
    "fedrec_toy/models.py": "from fedrec_flower.models import MF\nclass Toy(MF): ...\n",
    "fedrec_toy/strategies.py": (
        "from fedrec_flower.strategies import FedAvg\nclass Twin(FedAvg): ...\n"
    ),
    "fedrec_toy/data.py": (
        "from fedrec_flower.data.sources import Synthetic\nclass Sample(Synthetic): ...\n"
    ),
    "fedrec_toy/metrics.py": (
        "from fedrec_flower.evaluation.metrics.ranking import HitRate\n"
        "class Top(HitRate):\n    kind = 'top'\n"
    ),
    "fedrec_toy/callbacks.py": (
        "from fedrec_flower.federation.server.callback import Callback\n"
        "class StopAfter(Callback):\n"
        "    def __init__(self, last_round: int):\n"
        "        self.last_round, self.round = last_round, 0\n"
        "    def after_round(self, trained):\n"
        "        self.round = trained.round\n"
        "    def should_stop(self):\n"
        "        return self.round >= self.last_round\n"
    ),
    "fedrec_toy/conf/__init__.py": "",
    "fedrec_toy/conf/callbacks/stop_after.yaml": (
        "_target_: fedrec_toy.callbacks.StopAfter\nlast_round: 1\n"
    ),
    "fedrec_toy/conf/model/toy.yaml": (
        "_target_: fedrec_toy.models.Toy\nname: toy\nembedding_dim: 4\ninit_std: 0.1\n"
    ),
    "fedrec_toy/conf/strategy/twin.yaml": (
        "defaults:\n  - fedavg\n  - _self_\n_target_: fedrec_toy.strategies.Twin\nname: twin\n"
    ),
    "fedrec_toy/conf/dataset/sample.yaml": (
        "defaults:\n  - synthetic\n  - _self_\n_target_: fedrec_toy.data.Sample\nname: sample\n"
        "num_users: 40\nnum_items: 120\nnum_interactions: 900\n"
    ),
    "fedrec_toy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: fedrec-toy\nVersion: 1.0\n",
    "fedrec_toy-1.0.dist-info/WHEEL": (
        "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    ),
    "fedrec_toy-1.0.dist-info/entry_points.txt": (
        "[fedrec_flower.plugins]\ntoy = fedrec_toy\n"
        "[fedrec_flower.conf]\ntoy = fedrec_toy.conf\n"
        "[fedrec_flower.metrics]\ntop = fedrec_toy.metrics:Top\n"
    ),
}


def _record_line(name: str, text: str) -> str:
    digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
    return f"{name},sha256={digest},{len(text.encode())}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which pip has installed the wheel of the package."""
    folder = tmp_path_factory.mktemp("plugin")
    wheel = folder / "fedrec_toy-1.0-py3-none-any.whl"
    record = "fedrec_toy-1.0.dist-info/RECORD"
    lines = [*(_record_line(name, text) for name, text in FILES.items()), f"{record},,"]
    with ZipFile(wheel, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
        archive.writestr(record, "\n".join(lines) + "\n")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    target = folder / "site"
    subprocess.run([*pip, "--target", str(target), str(wheel)], check=True, timeout=240)
    return target


@pytest.fixture
def installed(site: Path) -> dict[str, str]:
    """The environment of a process in which the package is installed."""
    path = os.pathsep.join([str(site), str(Path(__file__).parents[2])])
    return {**os.environ, "PYTHONPATH": path}


def test_an_installed_package_gives_model_strategy_data_metric_and_callback(
    in_terminal: Start, installed: dict[str, str], tmp_path: Path
) -> None:
    words = (
        *("federation=in_process", "model=toy", "strategy=twin", "dataset=sample"),
        *("evaluation.metrics=[ndcg@10,hr@10,top@10]", "num_rounds=3"),
        "+callbacks@callbacks.stop_after=stop_after",
        *(f"dataset.cache_dir={tmp_path / 'cache'}", "output_dir=run"),
    )
    process = in_terminal(*words, cwd=tmp_path, env=installed)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    (summary,) = load_summaries(tmp_path / "run").to_dict("records")
    names = [summary[group] for group in ("model", "strategy", "dataset")]
    assert names == ["toy", "twin", "sample"]
    assert summary["stopped_at"] == 1
    runs = load_runs(tmp_path / "run")
    values = runs[runs["phase"] == "test"].set_index(["round", "metric"])["value"]
    assert values[(1, "top@10")] == values[(1, "hr@10")]


def test_help_lists_the_yaml_of_an_installed_package(
    in_terminal: Start, installed: dict[str, str], tmp_path: Path
) -> None:
    out, _ = in_terminal("--help", cwd=tmp_path, env=installed).communicate(timeout=60)
    (models,) = [line for line in out.splitlines() if line.startswith("model: ")]
    assert "toy" in models.removeprefix("model: ").split(", ")


def test_without_the_package_its_choices_do_not_exist(in_terminal: Start, tmp_path: Path) -> None:
    process = in_terminal("model=toy", cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert err.splitlines()[-1].startswith("error: model=toy does not exist: choose from ")

"""The wheel, the notebooks and the parallel launcher work outside the checkout."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pytest

from fedrec_flower.experiment.composition import CONF
from fedrec_flower.reports.load import load_summaries

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 240.0  # seconds


def succeeded(process: "subprocess.Popen[str]") -> str:
    """Text on stdout of a command that succeeds."""
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(CHECKOUT)]
    subprocess.run(build, check=True, capture_output=True, timeout=PATIENCE)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which the wheel is installed; its dependencies are in the environment."""
    folder = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    subprocess.run([*install, str(folder), str(wheel)], check=True, timeout=PATIENCE)
    return folder


def test_wheel_contains_the_configuration_and_no_tests(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {f"fedrec_flower/conf/{p.relative_to(CONF)}" for p in CONF.rglob("*.yaml")}
    assert {name for name in names if name.endswith(".yaml")} == expected
    tops = {name.partition("/")[0] for name in names}
    assert len(tops) == 2
    assert "fedrec_flower" in tops


def test_wheel_runs_without_the_checkout(
    in_terminal: "Start", site: Path, smoke: tuple[str, ...], tmp_path: Path
) -> None:
    alone = os.environ | {"PYTHONPATH": str(site)}
    where = "from fedrec_flower.experiment.composition import CONF; print(CONF)"
    found = subprocess.run(
        [sys.executable, "-c", where], env=alone, cwd=tmp_path, check=True, capture_output=True
    )
    assert found.stdout.decode().strip() == str(site / "fedrec_flower" / "conf")
    out = succeeded(in_terminal(*smoke, cwd=tmp_path, env=alone))
    folder = tmp_path / out.splitlines()[-1]
    assert folder.parent.parent == tmp_path / "results" / "runs"
    (summary,) = load_summaries(folder).to_dict("records")
    assert summary["status"] == "completed"
    assert summary["commit"] is None  # no checkout is near


def test_help_does_not_import_heavy_modules(in_terminal: "Start", tmp_path: Path) -> None:
    loud = os.environ | {"PYTHONPROFILEIMPORTTIME": "1"}
    process = in_terminal("--help", cwd=tmp_path, env=loud)
    out, err = process.communicate(timeout=PATIENCE)
    (models,) = (line for line in out.splitlines() if line.startswith("model: "))
    assert {"mf", "ncf"} <= set(models.removeprefix("model: ").split(", "))
    imported = {line.rpartition("|")[2].strip() for line in err.splitlines()}
    assert "hydra" in imported
    assert not {"torch", "flwr", "pandas", "matplotlib"} & imported
    assert list(tmp_path.iterdir()) == []


def test_parallel_launcher_runs_a_sweep(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    words = ("-m", *smoke, *launcher, "seed=1,2", "num_rounds=1", "output_dir=sweep")
    succeeded(in_terminal(*words, cwd=tmp_path))
    found = load_summaries(tmp_path / "sweep")
    assert list(found["run"]) == ["0", "1"]
    assert set(found["status"]) == {"completed"}
    assert sorted(found["seed"]) == [1, 2]


def test_failed_parallel_job_is_one_error(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    words = ("-m", *smoke, *launcher, "clients_per_round=3,61", "num_rounds=1", "output_dir=sweep")
    process = in_terminal(*words, cwd=tmp_path)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: clients_per_round=61 is impossible")
    assert "Traceback" not in err
    assert list(load_summaries(tmp_path / "sweep")["status"]) == ["completed", "failed"]


def shown_by(path: Path) -> list[Any]:
    """Run a notebook in its folder; returns the outputs, which are all displays."""
    import nbformat
    from nbclient import NotebookClient

    read: Any = nbformat.read
    notebook = read(path, as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "display_data"}
    return [output["data"] for output in outputs]


@pytest.mark.parametrize(("name", "figures"), [("plot_results", 4), ("leaderboard", 4)])
def test_notebook_shows_the_given_runs(
    name: str, figures: int, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDREC_RUNS", str(sweep))
    shown = shown_by(CHECKOUT / "notebooks" / f"{name}.ipynb")
    assert sum("image/png" in data for data in shown) == figures
    assert any("ncf" in data.get("text/html", "") for data in shown)


def test_leaderboard_notebook_runs_on_committed_results(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedrec_flower.reports.build import compare

    monkeypatch.delenv("FEDREC_RUNS", raising=False)
    compare(sweep, tmp_path / "results" / "leaderboard_ml100k", metric=None)
    copied = tmp_path / "notebooks" / "leaderboard.ipynb"
    copied.parent.mkdir()
    copied.write_bytes((CHECKOUT / "notebooks" / copied.name).read_bytes())
    shown = shown_by(copied)
    assert "committed" in shown[0]["text/markdown"]
    assert sum("image/png" in data for data in shown) == 4


def test_leakage_notebook_confirms_its_claims(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    *_, claims = shown_by(CHECKOUT / "notebooks" / "leakage.ipynb")
    assert claims["text/plain"].count("True") == 7
    assert "False" not in claims["text/plain"]

"""The Python interface: `from fedrec_flower import run, load_run`."""

import subprocess
import sys
from pathlib import Path

import pytest

import fedrec_flower
from fedrec_flower.core.errors import ConfigError, FedrecError
from fedrec_flower.experiment.summary import selected_validation

# Modules that take more than a tenth of a second to import.
HEAVY = {"torch", "flwr", "pandas", "hydra", "matplotlib", "numba", "ray", "scipy"}


def test_importing_the_package_loads_no_heavy_module() -> None:
    code = "import sys, fedrec_flower; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_run_returns_the_folder_summary_and_rounds_that_load_run_reads(
    smoke: tuple[str, ...], tmp_path: Path
) -> None:
    overrides = [*smoke, "num_rounds=2", f"output_dir={tmp_path / 'run'}"]
    run = fedrec_flower.run(overrides)
    assert run.folder == tmp_path / "run"
    assert run.summary["status"] == "completed"
    assert run.summary["overrides"] == overrides
    assert list(run.rounds) == ["round", "phase", "metric", "value", "num_clients"]
    assert set(run.rounds["round"]) == {0, 1, 2}
    assert (run.folder / "config.yaml").is_file()
    again = fedrec_flower.load_run(run.folder)
    assert again.summary == run.summary
    assert again.rounds.equals(run.rounds)


def test_run_with_an_unknown_option_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="modle does not exist: did you mean model"):
        fedrec_flower.run(["+modle=mf"])


def test_load_run_of_a_folder_without_summary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FedrecError, match="is not a run folder"):
        fedrec_flower.load_run(tmp_path)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'no_such_name'"):
        _ = fedrec_flower.no_such_name


def test_selected_validation_is_the_metric_of_the_selected_round() -> None:
    summary = {"validation": {"hr@10": 0.5, "ndcg@10": 0.25}}
    assert selected_validation(summary, "ndcg@10") == 0.25
    assert selected_validation(summary, "hr@500") == 0.5  # left out by a small catalogue
    assert selected_validation({"validation": {}}, "ndcg@10") is None

"""Same seed, same numbers; a run's own configuration repeats it, a sweep makes many."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedrec_flower.experiment.resume import _WRITTEN
from fedrec_flower.reports.leaderboard import comparison
from fedrec_flower.reports.load import load_runs, load_summaries

if TYPE_CHECKING:
    from tests.integration.conftest import Command


def test_sweep_creates_a_folder_per_job(sweep: Path) -> None:
    folders = {path.parent.relative_to(sweep).as_posix() for path in sweep.rglob("summary.json")}
    assert folders == {"0", "1", "2", "3"}


def test_sweep_is_loaded_and_averaged_over_seeds(sweep: Path) -> None:
    jobs = load_runs(sweep)[["model", "seed"]].drop_duplicates()
    pairs = sorted(map(tuple, jobs.to_numpy().tolist()))
    assert pairs == [("mf", 1), ("mf", 2), ("ncf", 1), ("ncf", 2)]
    table = comparison(sweep)
    assert list(table["seeds"]) == [2, 2]
    assert table["ndcg@10_sd"].notna().all()


def test_different_seeds_give_different_numbers(sweep: Path) -> None:
    one, other = ((sweep / job / "rounds.csv").read_text() for job in ("0", "1"))
    assert one != other
    assert len(one.splitlines()) == len(other.splitlines())


def test_config_path_repeats_a_run_exactly(command: "Command", sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep").symlink_to(sweep)  # a path from where the user stands
    again = command("--config-path", "sweep/2", "output_dir=again", cwd=tmp_path)
    assert again.code == 0, again.err
    for name in ("rounds.csv", "per_user.csv", "recommendations.csv", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (sweep / "2" / name).read_bytes()


def test_repeated_run_accepts_overrides_and_uses_a_new_folder(
    command: "Command", sweep: Path, tmp_path: Path
) -> None:
    again = command(f"--config-path={sweep / '0'}", "num_rounds=1", cwd=tmp_path)
    assert again.code == 0, again.err
    assert again.out.splitlines()[-1].startswith("results/runs/")
    (found,) = load_summaries(tmp_path).to_dict("records")
    assert (found["num_rounds"], found["model"], found["seed"]) == (1, "mf", 1)


def test_failed_job_is_named_and_other_jobs_complete(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    grid = ("clients_per_round=61,4", "num_rounds=1", f"output_dir={tmp_path}")
    ended = command("-m", *smoke, *grid)
    assert ended.code == 1
    assert "Error executing job" in ended.err
    assert "clients_per_round=61" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: clients_per_round=61 is impossible")
    status = load_summaries(tmp_path).set_index("run")["status"].to_dict()
    assert status == {"0": "failed", "1": "completed"}


# --- a sweep given twice ----------------------------------------------------------------------

GRID = ("model=mf,ncf", "seed=1,2", "num_rounds=2")  # of the fixture `sweep`


@pytest.fixture
def again(sweep: Path, tmp_path: Path) -> Path:
    """A copy of the sweep, to be run again."""
    return shutil.copytree(sweep, tmp_path / "again")


def _contents(folder: Path) -> dict[str, bytes]:
    """Every file but Hydra's own note on the sweep."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent != folder]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_completed_sweep_is_skipped(
    command: "Command", smoke: tuple[str, ...], again: Path
) -> None:
    before = _contents(again)
    ended = command("-m", *smoke, *GRID, f"output_dir={again}")
    assert ended.code == 0, ended.err
    assert _contents(again) == before
    for job in range(4):
        assert f"{again / str(job)} contains this run, completed: not run again" in ended.err
    assert ended.out.splitlines() == [str(again / str(job)) for job in range(4)]


def test_interrupted_sweep_is_resumed(
    command: "Command", smoke: tuple[str, ...], again: Path
) -> None:
    whole = _contents(again)
    summary = again / "1" / "summary.json"
    summary.write_text(summary.read_text().replace('"completed"', '"interrupted"'))
    (again / "1" / "model.safetensors").unlink()
    shutil.rmtree(again / "2")
    ended = command("-m", *smoke, *GRID, f"output_dir={again}")
    assert ended.code == 0, ended.err
    assert ended.err.count("completed: not run again") == 2
    assert ended.err.count("without a checkpoint: started again") == 1
    assert set(load_summaries(again)["status"]) == {"completed"}
    same = [name for name in whole if name.endswith((".csv", ".safetensors", "config.yaml"))]
    now = _contents(again)
    assert len(same) > 4 * 4
    assert {name: now[name] for name in same} == {name: whole[name] for name in same}


def test_resume_knows_every_file_that_a_run_writes(sweep: Path) -> None:
    # Nodes know the run by its identity: they must not answer the same round to another one.
    kept = {"config.yaml", "run_id"}
    assert {path.name for path in (sweep / "0").iterdir()} - kept <= set(_WRITTEN)


def test_extended_sweep_runs_only_new_jobs(
    command: "Command", smoke: tuple[str, ...], again: Path
) -> None:
    grid = ("model=mf,ncf,popularity", "seed=1,2", "num_rounds=2")
    ended = command("-m", *smoke, *grid, f"output_dir={again}")
    assert ended.code == 0, ended.err
    assert ended.err.count("completed: not run again") == 4
    models = load_summaries(again).set_index("run")["model"]
    assert dict(models[["4", "5"]]) == {"4": "popularity", "5": "popularity"}


def test_sweep_does_not_overwrite_another_sweep(
    command: "Command", smoke: tuple[str, ...], again: Path
) -> None:
    shutil.rmtree(again / "3")
    before = _contents(again)
    grid = ("model=mf,ncf", "seed=1,2", "num_rounds=1")
    ended = command("-m", *smoke, *grid, f"output_dir={again}")
    assert ended.code == 1
    said = ended.err.splitlines()[-1]
    assert said.startswith(
        f"error: {again / '0'} contains a run with num_rounds=2 instead of num_rounds=1: set "
    )
    now = _contents(again)
    assert {name: now[name] for name in before} == before
    assert dict(load_summaries(again).set_index("run")["status"])["3"] == "completed"


def test_single_run_is_not_resumed_without_resume(
    command: "Command", smoke: tuple[str, ...], again: Path
) -> None:
    words = ("model=mf", "seed=1", "num_rounds=2", f"output_dir={again / '0'}")
    before = _contents(again)
    assert "already holds a run" in command(*smoke, *words).sentence()
    assert _contents(again) == before


def test_leaderboard_jobs_are_named_by_model_strategy_and_seed(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    """So a longer list of models, or the same without federation, finds its own in one folder."""
    small = [*smoke[1:], "dataset=synthetic", "dataset.num_users=60", "dataset.num_items=200"]
    grid = ("model=popularity", "seed=1,2", f"output_dir={tmp_path}")
    for more in ([], ["federation=centralized"]):
        words = ("experiment=leaderboard_ml100k", *small, "dataset.num_interactions=1500")
        ended = command("-m", *words, *grid, *more)
        assert ended.code == 0, ended.err
    assert set(load_summaries(tmp_path)["run"]) == {
        f"popularity/{told}/{seed}"
        for told in ("in_process-sums", "centralized-centralized")
        for seed in (1, 2)
    }


def test_figures_exclude_runs_in_subfolders(
    command: "Command", smoke: tuple[str, ...], sweep: Path, tmp_path: Path
) -> None:
    """A run in a folder that contains other runs draws only its own results."""
    other = tmp_path / "older"
    shutil.copytree(sweep / "0", other)
    ended = command(*smoke, "model=ncf", "num_rounds=1", f"output_dir={tmp_path}")
    assert ended.code == 0, ended.err
    texts = [(folder / "figures" / "convergence.svg").read_text() for folder in (tmp_path, other)]
    labels = [set(re.findall(r"<!-- (.+?) -->", text)) for text in texts]
    assert "ncf" in labels[0]
    assert "mf" not in labels[0]
    assert "mf" in labels[1]  # shows that labels are found

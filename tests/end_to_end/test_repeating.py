"""Same seed, same numbers; a run's own configuration repeats it, a sweep makes many."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from fedrec_flower.results import comparison, load_runs, load_summaries

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Command


def test_a_sweep_makes_a_folder_per_job(sweep: Path) -> None:
    folders = {path.parent.relative_to(sweep).as_posix() for path in sweep.rglob("summary.json")}
    assert folders == {"0", "1", "2", "3"}


def test_the_runs_of_a_sweep_are_read_and_averaged_over_seeds(sweep: Path) -> None:
    jobs = load_runs(sweep)[["model", "seed"]].drop_duplicates()
    pairs = sorted(map(tuple, jobs.to_numpy().tolist()))
    assert pairs == [("mf", 1), ("mf", 2), ("ncf", 1), ("ncf", 2)]
    table = comparison(sweep)
    assert list(table["seeds"]) == [2, 2]
    assert table["ndcg@10_sd"].notna().all()


def test_another_seed_gives_other_numbers(sweep: Path) -> None:
    one, other = ((sweep / job / "rounds.csv").read_text() for job in ("0", "1"))
    assert one != other
    assert len(one.splitlines()) == len(other.splitlines())


def test_config_path_repeats_a_run_to_the_last_byte(
    command: "Command", sweep: Path, tmp_path: Path
) -> None:
    (tmp_path / "sweep").symlink_to(sweep)  # a path from where the user stands
    again = command("--config-path", "sweep/2", "output_dir=again", cwd=tmp_path)
    assert again.code == 0, again.err
    for name in ("rounds.csv", "per_user.csv", "recommendations.csv", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (sweep / "2" / name).read_bytes()


def test_a_repeated_run_takes_changed_values_and_a_folder_of_its_own(
    command: "Command", sweep: Path, tmp_path: Path
) -> None:
    again = command(f"--config-path={sweep / '0'}", "num_rounds=1", cwd=tmp_path)
    assert again.code == 0, again.err
    assert again.out.splitlines()[-1].startswith("results/runs/")
    (found,) = load_summaries(tmp_path).to_dict("records")
    assert (found["num_rounds"], found["model"], found["seed"]) == (1, "mf", 1)


def test_a_job_that_fails_leaves_the_others_alone_and_is_named(
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


def test_runs_below_a_run_stay_out_of_its_figures(
    command: "Command", smoke: tuple[str, ...], sweep: Path, tmp_path: Path
) -> None:
    """Whoever runs in a folder full of runs gets the figures of the new one."""
    other = tmp_path / "older"
    shutil.copytree(sweep / "0", other)
    ended = command(*smoke, "model=ncf", "num_rounds=1", f"output_dir={tmp_path}")
    assert ended.code == 0, ended.err
    texts = [(folder / "figures" / "convergence.svg").read_text() for folder in (tmp_path, other)]
    labels = [set(re.findall(r"<!-- (.+?) -->", text)) for text in texts]
    assert "ncf" in labels[0]
    assert "mf" not in labels[0]
    assert "mf" in labels[1]  # were labels written otherwise, this test could not tell

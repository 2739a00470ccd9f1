"""Same seed, same numbers: whoever hosts, however often, from a run's own configuration."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedrec_flower.results import comparison, load_runs, load_summaries

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Command, MakeRun, Run


def rounds(run: "Run") -> str:
    return (run.folder / "rounds.csv").read_text()


@pytest.fixture(scope="module")
def first(make_run: "MakeRun") -> "Run":
    return make_run("clients_per_round=20")


def test_the_same_seed_gives_the_same_bytes(first: "Run", make_run: "MakeRun") -> None:
    again = make_run("clients_per_round=20")
    for name in ("rounds.csv", "per_user.csv", "recommendations.csv", "model.safetensors"):
        assert (again.folder / name).read_bytes() == (first.folder / name).read_bytes()


def test_another_seed_gives_other_numbers(first: "Run", make_run: "MakeRun") -> None:
    assert rounds(make_run("clients_per_round=20", "seed=2")) != rounds(first)


@pytest.mark.parametrize("num_nodes", [2, 3])
def test_hosting_changes_nothing(first: "Run", make_run: "MakeRun", num_nodes: int) -> None:
    shared_out = make_run("clients_per_round=20", f"federation.num_nodes={num_nodes}")
    one, several = (run.table("rounds") for run in (first, shared_out))
    keys = ["round", "phase", "metric", "num_clients"]
    assert several[keys].equals(one[keys])
    assert list(several["value"]) == pytest.approx(list(one["value"]), abs=1e-5)


def test_config_path_repeats_a_run(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ended = command(*smoke, "model=ncf", "seed=5", "output_dir=first", cwd=tmp_path)
    assert ended.code == 0, ended.err
    again = command("--config-path", "first", "output_dir=again", cwd=tmp_path)
    assert again.code == 0, again.err
    texts = [(tmp_path / name / "rounds.csv").read_text() for name in ("first", "again")]
    assert texts[0] == texts[1]


def test_a_repeated_run_takes_a_new_folder_and_changed_values(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    first = command(*smoke, "num_rounds=1", "output_dir=first", cwd=tmp_path)
    again = command("--config-path=first", "num_rounds=2", cwd=tmp_path)
    assert (first.code, again.code) == (0, 0), again.err
    found = load_summaries(tmp_path)
    assert sorted(found["num_rounds"]) == [1, 2]
    assert again.out.splitlines()[-1].startswith("results/runs/")


def test_a_sweep_makes_a_folder_per_job(sweep: Path) -> None:
    folders = {path.parent.relative_to(sweep).as_posix() for path in sweep.rglob("summary.json")}
    assert folders == {"0", "1", "2", "3"}


def test_the_runs_of_a_sweep_are_read_and_averaged_over_seeds(sweep: Path) -> None:
    runs = load_runs(sweep)
    jobs = runs[["model", "seed"]].drop_duplicates()
    assert sorted(map(tuple, jobs.to_numpy().tolist())) == [
        ("mf", 1), ("mf", 2), ("ncf", 1), ("ncf", 2),
    ]  # fmt: skip
    table = comparison(sweep)
    assert list(table["seeds"]) == [2, 2]
    assert table["ndcg@10_sd"].notna().all()


def test_a_job_that_fails_leaves_the_others_alone_and_is_named(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    grid = ("clients_per_round=3,1000,4", "num_rounds=1", f"output_dir={tmp_path}")
    ended = command("-m", *smoke, *grid)
    assert ended.code == 1
    assert "clients_per_round=1000" in ended.err
    assert ended.err.splitlines()[-1].startswith("error: clients_per_round=1000 is impossible")
    status = load_summaries(tmp_path).set_index("run")["status"].to_dict()
    assert status == {"0": "completed", "1": "failed", "2": "completed"}


def test_runs_below_a_run_stay_out_of_its_figures(
    first: "Run", command: "Command", smoke: tuple[str, ...]
) -> None:
    """Whoever runs in a folder full of runs gets the figures of the new one."""
    above = first.folder.parent
    ended = command(*smoke, "model=ncf", f"output_dir={above}")
    assert ended.code == 0, ended.err
    drawn = (above / "figures" / "convergence.svg").read_text()
    assert "ncf" in drawn
    assert ">mf" not in drawn

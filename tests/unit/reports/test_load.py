"""Laws of reading run folders back, and of the tables made from them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.reports.leaderboard import comparison
from fedrec_flower.reports.load import load_per_user, load_runs, load_summaries
from fedrec_flower.reports.markdown import final_table, markdown
from fedrec_flower.threats.base import LOWER_BOUND
from tests.helpers.run_folders import summary, write_config, write_run


def _printed(told: Mapping[str, Any]) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(final_table(told))
    return capture.get()


def test_what_a_run_wrote_is_read_back(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "one")
    runs = load_runs(tmp_path / "runs")
    assert set(runs["run"]) == {"one"}
    validation = runs[runs["phase"] == "validation"]
    assert list(zip(validation["round"], validation["value"], strict=True)) == [(1, 0.1), (2, 0.3)]
    assert set(runs["num_clients"]) == {4}
    assert (runs["selected_round"] == 2).all()


def test_runs_of_nested_sweeps_are_told_apart(tmp_path: Path) -> None:
    for job, (model, seed) in enumerate([("mf", 1), ("mf", 2), ("ncf", 1)]):
        write_run(tmp_path / "2025-01-01" / "sweep" / str(job), model=model, seed=seed)
    write_run(tmp_path / "alone", model="ncf", seed=7)
    runs = load_runs(str(tmp_path))
    told = runs.drop_duplicates("run")[["run", "model", "seed"]]
    assert list(told.itertuples(index=False, name=None)) == [
        ("2025-01-01/sweep/0", "mf", 1),
        ("2025-01-01/sweep/1", "mf", 2),
        ("2025-01-01/sweep/2", "ncf", 1),
        ("alone", "ncf", 7),
    ]
    assert len(runs) == 4 * 2 * 2


def test_a_run_folder_itself_is_one_run_named_after_it(tmp_path: Path) -> None:
    write_run(tmp_path / "mine")
    assert set(load_runs(tmp_path / "mine")["run"]) == {"mine"}


def test_a_half_written_last_row_is_no_row(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    whole = load_runs(tmp_path)
    with (run.path / "rounds.csv").open("a") as file:
        file.write("3,validation,hr@10,0.9,9")
    pd.testing.assert_frame_equal(load_runs(tmp_path), whole)


def test_a_running_run_is_read_with_its_status(tmp_path: Path) -> None:
    write_run(tmp_path / "ended")
    started = RunFolder.create(tmp_path / "started")
    started.write_summary({"status": "running", "model": "mf", "seed": 1})
    assert set(load_runs(tmp_path)["status"]) == {"completed"}  # no row of the other one yet
    started.add_round(1, "train", {"loss": 0.5}, 4)
    runs = load_runs(tmp_path)
    assert set(runs["status"]) == {"completed", "running"}
    assert runs.loc[runs["run"] == "started", "selected_round"].isna().all()
    assert list(load_summaries(tmp_path)["status"]) == ["completed", "running"]


def test_a_run_before_its_first_round_gives_an_empty_table(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run").write_summary({"status": "running"})
    runs = load_runs(tmp_path)
    assert runs.empty
    assert {"run", "model", "seed", "round", "metric", "value"} <= set(runs.columns)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("summary.json", '{"status": '),
        ("summary.json", "[]"),
        ("rounds.csv", ""),
        ("rounds.csv", "round,phase,metric,value,num_clients\nx,test,hr@10,0.5,4\n"),
    ],
)
def test_a_broken_run_is_skipped_by_name(tmp_path: Path, file: str, content: str) -> None:
    write_run(tmp_path / "good")
    (write_run(tmp_path / "broken").path / file).write_text(content)
    with pytest.warns(UserWarning, match="broken is skipped"):
        assert set(load_runs(tmp_path)["run"]) == {"good"}


@pytest.mark.parametrize("where", ["", "nowhere"])
def test_no_run_says_where_it_looked_and_how_to_make_one(tmp_path: Path, where: str) -> None:
    for load in (load_runs, load_summaries, load_per_user, comparison):
        with pytest.raises(FedrecError, match=rf"{tmp_path.name}.*python -m fedrec_flower"):
            load(tmp_path / where)


def test_summaries_are_flat_with_nested_names_dotted(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    row = load_summaries(tmp_path).iloc[0]
    assert row["test.hr@10"] == 0.25
    assert row["seconds.total"] == 2.0
    assert row["bytes.total"] == 3_000_000
    assert pd.isna(row["epsilon"])


def test_users_of_all_runs_stand_in_one_table(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=1)
    write_run(tmp_path / "1", seed=2, model="mf")
    (write_run(tmp_path / "2").path / "per_user.csv").unlink()
    with pytest.warns(UserWarning, match="2 is skipped"):
        users = load_per_user(tmp_path)
    columns = ["run", "model", "seed", "user_id", "rank_full"]
    assert list(users[columns].itertuples(index=False, name=None)) == [
        ("0", "ncf", 1, "a", 1),
        ("0", "ncf", 1, "b", 7),
        ("1", "mf", 2, "a", 1),
        ("1", "mf", 2, "b", 7),
    ]


def test_runs_that_differ_in_their_seed_alone_are_one_configuration(tmp_path: Path) -> None:
    write_run(tmp_path / "one", seed=1)
    write_run(tmp_path / "another seed", seed=2, overrides=["seed=2", "output_dir=there"])
    write_run(tmp_path / "another rate", seed=1, overrides=["training.learning_rate=0.1"])
    runs = load_summaries(tmp_path).set_index("run")
    told = runs["configuration"]
    assert told["one"] == told["another seed"] != told["another rate"]
    assert dict(runs["label"]) == {
        "one": "ncf, training.learning_rate=unset",
        "another seed": "ncf, training.learning_rate=unset",
        "another rate": "ncf, training.learning_rate=0.1",
    }


def test_every_frame_tells_folds_apart(tmp_path: Path) -> None:
    for fold in ("u1", "u2"):
        write_run(tmp_path / fold, split_sha256=fold)
    for load in (load_runs, load_summaries, load_per_user):
        assert set(load(tmp_path)["split_sha256"]) == {"u1", "u2"}


def test_what_config_yaml_says_goes_before_the_overrides(tmp_path: Path) -> None:
    """One run was told by overrides what the other was told by a file."""
    told = {"model__name": "mf", "model__embedding_dim": 8, "dataset__name": "d"}
    places = {"0": "/here", "1": "/there"}
    for seed, (name, cache) in enumerate(places.items()):
        overrides = [f"model.embedding_dim={8 * seed}"]
        run = write_run(tmp_path / name, model="mf", seed=seed, overrides=overrides)
        write_config(run, **told, seed=seed, dataset__cache_dir=cache)
    summaries = load_summaries(tmp_path)
    assert len(set(summaries["configuration"])) == 1
    assert set(load_runs(tmp_path)["label"]) == set(load_per_user(tmp_path)["label"]) == {"mf"}


def test_a_broken_config_is_skipped_by_name(tmp_path: Path) -> None:
    write_run(tmp_path / "good")
    write_run(tmp_path / "broken").write_configuration("model: [")
    with pytest.warns(UserWarning, match="broken is skipped: config.yaml"):
        assert set(load_runs(tmp_path)["run"]) == {"good"}


def test_markdown_is_a_github_table() -> None:
    frame = pd.DataFrame({"model": ["a|b", "c"], "seeds": [3, 1], "sd": [0.1234, float("nan")]})
    assert markdown(frame).splitlines() == [
        "| model | seeds | sd |",
        "| --- | ---: | ---: |",
        "| a\\|b | 3 | 0.123 |",
        "| c | 1 |  |",
    ]


def test_the_final_table_says_what_the_run_was_put_under() -> None:
    printed = _printed(summary(conditions={"faults": "mixed"}, lost_replies={"late": 1047}))
    assert "faults=mixed, seed 1" in printed
    assert "1,047 late replies" in printed


def test_the_final_table_says_where_nothing_chose_the_round() -> None:
    printed = _printed(summary(validation={"ndcg@10": float("nan")}))
    assert "round 2 of 2, the last, for nothing is held out for validation" in printed
    assert "nan" not in printed


def test_the_final_table_gives_result_error_and_cost() -> None:
    printed = _printed(summary())
    for told in (
        "ncf, ml-100k, fedavg",
        "0.3000",
        "0.2500 ± 0.1250",
        "round 2 of 2, chosen on validation; n = 4",
        "2.0 kB down and 1.0 kB up",
        "total 2.0 s",
        "1,234 clients per second",
        "321 MB",
        "none (epsilon = infinity)",
    ):
        assert told in printed
    assert "Leaky" not in printed


def test_the_final_table_shows_what_a_poisoning_achieved() -> None:
    """A14: what an attack achieved is shown."""
    assert "exposure" not in _printed(summary())
    achieved = {"exposure@10": 0.742, "ndcg@10_honest": 0.05, "num_targets": 5, "malicious": 47}
    printed = _printed(summary(attack=achieved | LOWER_BOUND))
    for shown in ("exposure@10", "0.7420", "ndcg@10_honest", "47", "attack=watch", "lower bound"):
        assert shown in printed


def test_the_final_table_shows_what_an_inference_found() -> None:
    """A14: what an attack achieved is shown."""
    found = {"auc": 0.918, "auc_se": 0.0125, "advantage": 0.836, "update/auc": 0.777}
    printed = _printed(summary(attack=found | LOWER_BOUND | {"randomness": "a trapdoor"}))
    for shown in ("a trapdoor", "0.9180 ± 0.0125", "advantage", "lower bounds of what is leaked"):
        assert shown in printed
    assert "0.777" not in printed  # one view of many: in summary.json


def test_the_final_table_of_the_legacy_protocol_says_it_leaks() -> None:
    printed = _printed(summary(protocol="leave_one_out legacy"))
    assert "Leaky protocol (split.negatives=legacy)" in printed


def test_the_final_table_bears_the_summary_of_an_unfinished_run(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_summary(
        {"status": "interrupted", "model": "mf", "validation": {"rmse": float("nan")}}
    )
    read = json.loads((run.path / "summary.json").read_text())
    assert "rmse" in _printed(read)
    assert "epsilon = 2" in _printed(read | {"epsilon": 2.0})

"""A run folder contains the documented files, and their numbers agree."""

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf
from safetensors.numpy import load_file

from fedrec_flower.reports.load import load_per_user, load_runs, load_summaries

if TYPE_CHECKING:
    from tests.integration.conftest import Command, Ended, Run

FIGURES = ("convergence", "participation", "metric_by_activity", "data_partition")
FILES = {
    "config.yaml", "environment.json", "rounds.csv", "per_user.csv", "recommendations.csv",
    "clients.csv", "summary.json", "model.safetensors", "flower.log", "clients", "figures",
    "run_id",
}  # fmt: skip
SUMMARY = {
    "status", "dataset", "model", "strategy", "partition", "federation", "seed", "num_clients",
    "num_rounds", "selected_round", "validation", "test", "best_test_round", "seconds",
    "clients_per_second", "bytes", "peak_memory_mb", "split_sha256", "versions",
}  # fmt: skip
METRICS = {
    f"{name}{suffix}"
    for name in ("hr@5", "hr@10", "hr@20", "ndcg@5", "ndcg@10", "ndcg@20", "mrr@10", "auc")
    for suffix in ("", "_99neg")
}
NUM_ROUNDS, EVERY = 6, 2


@pytest.fixture(scope="module")
def ended(
    command: "Command", own_data: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> tuple["Ended", Path]:
    """A run as a user starts it, in a folder of their own."""
    home = tmp_path_factory.mktemp("home")
    return command(*own_data, "output_dir=here/run", cwd=home), home


@pytest.fixture(scope="module")
def run(ended: tuple["Ended", Path]) -> "Run":
    from tests.integration.conftest import Run

    assert ended[0].code == 0, ended[0].err
    return Run(ended[1] / "here" / "run")


@pytest.fixture(scope="module")
def history(ratings: Path) -> dict[str, list[str]]:
    """The items of each user by time, read from the user's file without the package."""
    frame = pd.read_csv(ratings, dtype={"user_id": str}).sort_values("timestamp")
    return {str(user): list(rows["item_id"]) for user, rows in frame.groupby("user_id")}


def test_run_folder_contains_exactly_the_documented_files(run: "Run") -> None:
    assert {path.name for path in run.folder.iterdir()} == FILES
    drawn = {f"{name}.{ending}" for name in FIGURES for ending in ("png", "svg")}
    assert {path.name for path in (run.folder / "figures").iterdir()} == drawn
    assert all(path.stat().st_size > 1000 for path in (run.folder / "figures").iterdir())


def test_last_line_of_output_is_the_run_folder(ended: tuple["Ended", Path]) -> None:
    assert ended[0].out.splitlines()[-1] == "here/run"


def test_final_table_precedes_the_last_line(ended: tuple["Ended", Path], run: "Run") -> None:
    assert f"{run.summary['test']['ndcg@10']:.4f}" in ended[0].out
    assert ended[0].err.splitlines()[0].startswith("round 0/6 validation ndcg@10 ")


def test_summary_has_all_documented_keys(run: "Run") -> None:
    summary = run.summary
    assert set(summary) >= SUMMARY
    assert summary["status"] == "completed"
    assert (summary["model"], summary["dataset"]) == ("mf", "file")
    assert (summary["partition"], summary["federation"]) == ("user", "in_process")
    assert (summary["num_clients"], summary["num_rounds"], summary["seed"]) == (40, 6, 4)
    assert set(summary["seconds"]) == {"setup", "train", "evaluate", "total"}
    assert set(summary["validation"]) == METRICS
    assert set(summary["test"]) >= METRICS
    assert set(summary["best_test_round"]) == METRICS | {"round"}
    assert len(summary["split_sha256"]) == 64
    assert summary["peak_memory_mb"] > 50
    assert {"python", "torch", "flwr", "ray"} <= set(summary["versions"])


def test_parts_of_the_time_sum_to_at_most_the_total(run: "Run") -> None:
    seconds = run.summary["seconds"]
    assert min(seconds.values()) > 0
    assert seconds["setup"] + seconds["train"] + seconds["evaluate"] < 1.5 * seconds["total"]
    participations = 40 * NUM_ROUNDS
    assert run.summary["clients_per_second"] == pytest.approx(participations / seconds["train"])


def test_total_bytes_count_every_participation(run: "Run") -> None:
    sent = run.summary["bytes"]
    parameters = load_file(run.folder / "model.safetensors")
    num_bytes = sum(value.nbytes for value in parameters.values())
    assert num_bytes <= sent["down_per_client"] < num_bytes + 1000  # a header for each array
    assert 0 < sent["up_per_client"] < num_bytes  # only the rows that a client touched
    whole = (sent["down_per_client"] + sent["up_per_client"]) * 40 * NUM_ROUNDS
    assert sent["total"] == whole


def test_rounds_csv_contains_round_0_and_every_nth_round(run: "Run") -> None:
    rounds = run.table("rounds")
    assert list(rounds) == ["round", "phase", "metric", "value", "num_clients"]
    assert list(run.values("train", "loss")) == list(range(1, NUM_ROUNDS + 1))
    for phase in ("validation", "test"):
        assert list(run.values(phase, "ndcg@10")) == list(range(0, NUM_ROUNDS + 1, EVERY))
        assert set(rounds.query("phase == @phase")["metric"]) == METRICS
    assert set(rounds["num_clients"]) == {40}
    assert rounds["value"].notna().all()


def test_summary_reports_the_round_selected_by_validation(run: "Run") -> None:
    summary, validation = run.summary, run.values("validation", "ndcg@10")
    best = max(validation.values())
    first_best = next(round_ for round_, value in validation.items() if value == best)
    assert summary["selected_round"] == first_best
    for phase in ("validation", "test"):
        at_selected = {metric: run.values(phase, metric)[first_best] for metric in METRICS}
        reported = {metric: summary[phase][metric] for metric in METRICS}
        assert reported == pytest.approx(at_selected)


def test_best_test_round_is_reported_separately(run: "Run") -> None:
    summary, test = run.summary, run.values("test", "ndcg@10")
    best = summary["best_test_round"]
    assert best["ndcg@10"] == max(test.values()) == test[best["round"]]
    # The test needs two different rounds.
    assert best["round"] != summary["selected_round"]
    assert summary["test"]["ndcg@10"] < best["ndcg@10"]


def test_per_user_contains_the_last_item_of_each_user(
    run: "Run", history: dict[str, list[str]]
) -> None:
    table = run.table("per_user")
    assert list(table) == ["user_id", "held_out_item_id", "num_train", "rank_full", "rank_99neg"]
    assert list(table["user_id"]) == sorted(history)
    assert list(table["held_out_item_id"]) == [history[user][-1] for user in table["user_id"]]
    assert list(table["num_train"]) == [len(history[user]) - 2 for user in table["user_id"]]


@pytest.mark.parametrize(("column", "suffix"), [("rank_full", ""), ("rank_99neg", "_99neg")])
def test_ranks_reproduce_the_metrics_of_the_summary(run: "Run", column: str, suffix: str) -> None:
    ranks, test = run.table("per_user")[column], run.summary["test"]
    listed = ranks <= 10
    assert test[f"hr@10{suffix}"] == pytest.approx(listed.mean())
    assert test[f"ndcg@10{suffix}"] == pytest.approx((listed / np.log2(ranks + 1)).mean())
    assert test[f"mrr@10{suffix}"] == pytest.approx((listed / ranks).mean())


def test_recommendations_are_ten_unseen_items_each(
    run: "Run", history: dict[str, list[str]]
) -> None:
    table = run.table("recommendations")
    assert list(table) == ["user_id", "rank", "item_id", "title", "score"]
    assert (table["title"] == "The " + table["item_id"]).all()
    assert set(table["user_id"]) == set(history)
    for user, rows in table.groupby("user_id"):
        assert list(rows["rank"]) == list(range(1, 11))
        assert rows["score"].is_monotonic_decreasing
        assert not set(rows["item_id"]) & set(history[str(user)][:-1])


def test_held_out_item_is_recommended_at_its_rank(run: "Run") -> None:
    table = run.table("recommendations")
    recommended = set(zip(table["user_id"], table["item_id"], strict=True))
    per_user = run.table("per_user")
    held_out = zip(per_user["user_id"], per_user["held_out_item_id"], strict=True)
    assert [pair in recommended for pair in held_out] == list(per_user["rank_full"] <= 10)
    assert (per_user["rank_full"] <= 10).any()


def test_clients_csv_describes_the_partition(run: "Run", history: dict[str, list[str]]) -> None:
    table = run.table("clients")
    assert list(table["num_train"]) == [len(history[user]) - 2 for user in sorted(history)]
    assert set(table["rounds_participated"]) == {NUM_ROUNDS}


def test_model_file_has_shared_and_clients_folder_personal_parameters(run: "Run") -> None:
    shared = load_file(run.folder / "model.safetensors")
    assert set(shared) == {"item_embedding.weight", "item_bias.weight"}
    assert len(shared["item_bias.weight"]) == run.summary["num_items"]
    personal = load(run.folder / "clients" / "user_embedding.weight.npy")
    assert personal.shape == (40, shared["item_embedding.weight"].shape[1])


def load(path: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(path)
    return array


def test_saved_model_reproduces_the_recommended_scores(run: "Run") -> None:
    """The tensors left behind are those of the selected round, not of the last."""
    shared = load_file(run.folder / "model.safetensors")
    users = load(run.folder / "clients" / "user_embedding.weight.npy")
    scores = users @ shared["item_embedding.weight"].T + shared["item_bias.weight"].T
    best = run.table("recommendations").query("rank == 1")["score"]
    assert (scores.max(axis=1) >= best - 1e-5).all()
    assert np.isclose(scores[:, :, None], best.to_numpy()[:, None, None], atol=1e-5).any(1).all()
    # The test needs a selected round that is not the last one.
    assert run.summary["selected_round"] != NUM_ROUNDS


def test_personal_files_are_marked_and_private(run: "Run") -> None:
    private = run.folder / "clients"
    assert "Do not publish" in (private / "PRIVATE.txt").read_text()
    arrays = list(private.glob("*.npy"))
    assert arrays
    assert {stat.S_IMODE(path.stat().st_mode) for path in arrays} == {0o600}
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


def test_config_yaml_is_resolved(run: "Run", own_data: tuple[str, ...]) -> None:
    from fedrec_flower.experiment.composition import compose

    saved = OmegaConf.to_container(OmegaConf.load(run.folder / "config.yaml"))
    assert isinstance(saved, dict)
    expected, _ = compose(list(own_data))
    for name in set(expected) - {"overrides", "output_dir"}:
        assert saved[name] == expected[name]


def test_published_files_do_not_identify_the_machine(run: "Run") -> None:
    import getpass
    import socket

    described = json.loads((run.folder / "environment.json").read_text())
    assert described["cores"] >= 1
    text = json.dumps(described) + (run.folder / "rounds.csv").read_text()
    for secret in (socket.gethostname(), str(Path.home()), f"/{getpass.getuser()}/"):
        assert secret not in text


def test_load_functions_read_the_run_folder(run: "Run") -> None:
    runs = load_runs(run.folder)
    assert len(runs) == len(run.table("rounds"))
    assert set(runs["selected_round"]) == {run.summary["selected_round"]}
    assert len(load_per_user(run.folder)) == 40
    summaries = load_summaries(run.folder)
    assert list(summaries["test.ndcg@10"]) == [run.summary["test"]["ndcg@10"]]

"""Every choice of the configuration runs from start to figures and writes its own results."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedrec_flower.experiment.composition import CONF

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

NUM_USERS, NUM_ROUNDS = 60, 4  # of experiment=smoke
PARTITIONS = sorted(path.stem for path in (CONF / "partition").glob("*.yaml"))
NUM_CLIENTS = {
    "user": NUM_USERS, "single": 1, "silo_random": 10, "silo_dirichlet": 10, "silo_quantity": 10,
}  # fmt: skip
WHAT_THE_DATA_HAVE = {"silo_attribute": ("partition.attribute=group",)}


@pytest.mark.parametrize("name", PARTITIONS)
def test_every_partition_runs(make_run: "MakeRun", name: str) -> None:
    run = make_run(f"partition={name}", *WHAT_THE_DATA_HAVE.get(name, ()), "num_rounds=1")
    clients, summary = run.table("clients"), run.summary
    assert summary["status"] == "completed"
    assert summary["partition"] == name
    assert clients["num_users"].sum() == NUM_USERS
    assert len(clients) == summary["num_clients"] == NUM_CLIENTS.get(name, len(clients))
    assert len(run.table("per_user")) == NUM_USERS


@pytest.mark.parametrize("variant", ["mlp", "neumf"])  # other tests run the default
def test_every_ncf_variant_runs_and_keeps_user_vectors_on_clients(
    make_run: "MakeRun", variant: str
) -> None:
    run = make_run("model=ncf", f"model.variant={variant}", "num_rounds=1")
    shared = load_file(run.folder / "model.safetensors")
    assert any(name.startswith("hidden.") for name in shared)
    assert not any(name.startswith("user_") for name in shared)


@pytest.mark.parametrize("name", ["ease", "ials", "itemknn", "popularity", "random"])
def test_every_closed_form_model_runs(make_run: "MakeRun", name: str) -> None:
    run = make_run(f"model={name}", "num_rounds=2")
    summary = run.summary
    assert (summary["status"], summary["strategy"]) == ("completed", "sums")
    assert len(run.table("per_user")) == NUM_USERS
    assert all(np.isnan(loss) for loss in run.values("train", "loss").values())
    learns = bool(load_file(run.folder / "model.safetensors"))
    assert learns == (name != "random") == (summary["bytes"]["total"] > 0)
    assert (run.folder / "figures" / "convergence.png").exists()


def test_local_only_shares_nothing(make_run: "MakeRun") -> None:
    run = make_run("strategy=local_only")
    assert load_file(run.folder / "model.safetensors") == {}
    assert run.summary["bytes"]["down_per_client"] == 0
    assert (run.folder / "clients" / "item_embedding.weight.npy").exists()
    losses = run.values("train", "loss")
    assert losses[NUM_ROUNDS] < losses[1]  # each client learns


def test_fedadam_first_step_has_the_length_of_its_rates(make_run: "MakeRun") -> None:
    last_round = ("split=leave_last_fraction", "split.validation_fraction=0.0", "num_rounds=1")
    rates = {"server_learning_rate": 0.25, "beta1": 0.9, "beta2": 0.99, "tau": 1e-9}
    words = [f"strategy.{name}={value}" for name, value in rates.items()]
    run = make_run("strategy=fedadam", *last_round, *words)
    bias = load_file(run.folder / "model.safetensors")["item_bias.weight"]
    # After one step both moments equal the gradient, so they cancel; the corrections are Flower's.
    step = 0.25 * np.sqrt(1 - 0.99**2) / (1 - 0.9**2)
    moved = np.abs(bias[bias != 0])
    assert len(moved) > len(bias) / 2
    assert moved == pytest.approx(step, rel=1e-3)


@pytest.mark.parametrize("task", ["ranking", "rating"])
def test_centralized_has_one_client_with_all_data(make_run: "MakeRun", task: str) -> None:
    run = make_run("federation=centralized", f"task={task}")
    summary = run.summary
    assert (summary["federation"], summary["partition"]) == ("centralized", "single")
    assert summary["num_clients"] == 1
    assert summary["num_users"] == NUM_USERS
    losses = list(run.values("train", "loss").values())
    assert all(later < earlier for earlier, later in pairwise(losses))


def test_rating_metrics_are_in_rating_units(make_run: "MakeRun") -> None:
    run = make_run("task=rating")
    table, summary = run.table("per_user"), run.summary
    columns = ["user_id", "num_train", "squared_error", "absolute_error", "num_ratings"]
    assert list(table) == columns
    assert summary["num_test_users"] == (table["num_ratings"] > 0).sum()
    num_ratings = table["num_ratings"].sum()
    assert num_ratings == int(0.2 * 1500)
    assert {"rmse", "mae"} <= set(summary["test"])
    rmse = np.sqrt(table["squared_error"].sum() / num_ratings)
    assert summary["test"]["rmse"] == pytest.approx(rmse)
    assert summary["test"]["mae"] == pytest.approx(table["absolute_error"].sum() / num_ratings)
    validation = run.values("validation", "rmse")
    assert validation[summary["selected_round"]] == min(validation.values())  # lower is better


def test_cohort_has_the_configured_size(make_run: "MakeRun") -> None:
    run = make_run("clients_per_round=7")
    trained = run.table("rounds").query("phase == 'train'")
    assert set(trained["num_clients"]) == {7}
    participated = run.table("clients")["rounds_participated"]
    assert participated.sum() == 7 * NUM_ROUNDS
    assert participated.max() <= NUM_ROUNDS
    sent = run.summary["bytes"]
    both_ways = sent["down_per_client"] + sent["up_per_client"]
    assert sent["total"] == both_ways * 7 * NUM_ROUNDS


def test_sampled_evaluation_ends_with_all_clients(make_run: "MakeRun") -> None:
    run = make_run("evaluation.num_clients=5")
    evaluated = run.table("rounds").query("phase != 'train'")
    assert set(evaluated["num_clients"]) == {5}
    ranks = run.table("per_user")["rank_full"]
    assert len(ranks) == run.summary["num_test_users"] == NUM_USERS
    assert run.summary["test"]["hr@20"] == pytest.approx((ranks <= 20).mean())


def test_zero_rounds_evaluate_the_untrained_model(make_run: "MakeRun") -> None:
    run = make_run("num_rounds=0")
    assert run.summary["status"] == "completed"
    assert run.summary["selected_round"] == 0
    assert set(run.table("rounds")["round"]) == {0}
    assert run.summary["clients_per_second"] is None
    assert run.summary["bytes"]["total"] == 0


def test_metrics_and_protocols_are_the_configured_ones(make_run: "MakeRun") -> None:
    words = ("evaluation.metrics=[hr@3]", "evaluation.select_by=hr@3", "evaluation.num_negatives=0")
    run = make_run(*words, "num_rounds=1")
    assert set(run.summary["validation"]) == {"hr@3"}
    assert list(run.table("per_user"))[-1] == "rank_full"


def test_test_history_is_a_separate_protocol_and_preserves_validation(make_run: "MakeRun") -> None:
    reading_on = "evaluation.test_history=train_and_validation"
    plain, later = (make_run("model=ease", *words) for words in ((), (reading_on,)))
    assert plain.summary["protocol"] == "leave_one_out, honest"
    assert later.summary["protocol"] == "leave_one_out, honest, test reads validation"
    assert plain.summary["validation"] == later.summary["validation"]
    assert plain.summary["test"] != later.summary["test"]


def test_without_validation_the_last_round_and_the_leaky_protocol_are_reported(
    make_run: "MakeRun",
) -> None:
    split = ("split=leave_last_fraction", "split.validation_fraction=0.0", "split.negatives=legacy")
    summary = make_run(*split).summary
    assert summary["selected_round"] == NUM_ROUNDS
    assert summary["validation"] == {}
    assert summary["protocol"] == "leave_last_fraction, legacy"


def test_implicit_data_without_timestamps_run_with_a_random_split(
    make_run: "MakeRun", ratings: Path, own_data: tuple[str, ...], tmp_path: Path
) -> None:
    pairs = pd.read_csv(ratings, dtype=str)[["user_id", "item_id"]]
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    words = (
        f"dataset.path={tmp_path / 'pairs.csv'}",
        "dataset.columns.rating=null",
        "dataset.columns.timestamp=null",
        "split=random",
        "num_rounds=1",
    )
    run = make_run(*words, base=own_data)
    recommended = run.table("recommendations")
    assert run.summary["status"] == "completed"
    assert set(recommended["user_id"]) == set(pairs["user_id"])
    assert set(recommended["item_id"]) <= set(pairs["item_id"])

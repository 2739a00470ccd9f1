"""Laws of the leaderboard: what it says of a row is what the row's runs say."""

from math import inf
from pathlib import Path
from typing import Any

import pytest

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.headline import leaderboard_markdown
from fedrec_flower.reports.leaderboard import comparison, leaderboard_table
from tests.helpers.run_folders import write_config, write_run
from tests.helpers.tested_runs import BAD, GOOD, hit_rate, write_tested


def test_a_row_is_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, value in enumerate((0.2, 0.3, 0.4), start=1):
        test = {"hr@10": value}
        write_run(tmp_path / f"mf{seed}", model="mf", seed=seed, test=test, peak_memory_mb=seed)
    write_run(tmp_path / "ncf", model="ncf")
    table = comparison(tmp_path).set_index("label")
    assert list(table["seeds"]) == [3, 1]
    assert list(table["seed"]) == ["1, 2, 3", "1"]
    assert table.loc["mf", "hr@10"] == pytest.approx((0.2 + 0.3 + 0.4) / 3)
    assert table.loc["mf", "hr@10_sd"] == pytest.approx(((0.1**2 + 0 + 0.1**2) / 2) ** 0.5)
    assert table.loc["mf", "hr@10_se"] == 0.125
    assert table.loc["mf", "peak_memory_mb"] == (1 + 2 + 3) / 3
    assert table.loc["ncf", "hr@10"] == 0.25
    assert table["hr@10_sd"].isna()["ncf"]


def test_a_row_carries_its_costs_and_its_origin(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=1)
    write_run(tmp_path / "1", seed=2, commit="another")
    row = comparison(tmp_path).iloc[0]
    expected = {
        "protocol": "leave_one_out, honest",
        "candidates": "full ranking",
        "num_rounds": 2,
        "clients_per_round": 4,  # null: all of them
        "epsilon": inf,
        "bytes_down_per_client_and_round": 2000,
        "bytes_up_per_client_and_round": 1000,
        "bytes_total": 3_000_000,
        "megabytes_per_client": 3_000_000 / 4 / 1e6,
        "seconds_total": 2.0,
        "clients_per_second": 1234.5,
        "split_sha256": "abc",
        "commit": "def, another",
        "versions": "python=3.11",
    }
    assert {name: row[name] for name in expected} == expected


def test_nothing_travels_without_a_federation(tmp_path: Path) -> None:
    write_run(tmp_path / "0", federation="centralized")
    row = comparison(tmp_path).iloc[0]
    costs = [row[name] for name in row.index if name.startswith(("bytes", "megabytes"))]
    assert costs == [0.0] * 4


def test_a_row_tells_how_evenly_users_are_served(tmp_path: Path) -> None:
    for seed, gap in ((1, -0.25), (2, 0.75)):
        fairness = {"worst_decile_hr@10": 0.125, "activity_gap_hr@10": gap}
        write_run(tmp_path / f"mf{seed}", model="mf", seed=seed, fairness=fairness)
    write_run(tmp_path / "older", model="ncf", test={"hr@10": 0.2})
    table = comparison(tmp_path).set_index("label")
    assert table.loc["mf", "hr@10_worst_decile"] == 0.125
    assert table.loc["mf", "hr@10_activity_gap"] == (-0.25 + 0.75) / 2
    text = leaderboard_markdown(table.reset_index())
    heading, _, *rows = _lines(text)
    assert [row[heading.index("activity gap")] for row in rows] == ["+0.2500", ""]
    assert "Activity gap: hr@10 of the most active quarter" in text


def test_a_gap_in_another_metric_than_the_first_stays_in_the_table(tmp_path: Path) -> None:
    fairness = {"activity_gap_negative_mse": 0.5}
    write_run(tmp_path / "0", task="rating", test={"rmse": 0.9}, fairness=fairness)
    table = comparison(tmp_path)
    assert list(table["negative_mse_activity_gap"]) == [0.5]
    assert "activity gap" not in leaderboard_markdown(table).lower()


def test_folds_of_ratings_count_as_seeds_and_those_of_a_ranking_stand_apart(tmp_path: Path) -> None:
    for task in ("rating", "ranking"):
        for fold, value in enumerate((0.2, 0.3, 0.4), start=1):
            write_run(
                tmp_path / task / str(fold),
                task=task,
                test={"rmse": value},
                split_sha256=f"fold {fold}",
                overrides=[f"split.fold={fold}"],
            )
    table = comparison(tmp_path / "rating")
    assert list(table["seeds"]) == [3]
    assert table["rmse"].iloc[0] == pytest.approx((0.2 + 0.3 + 0.4) / 3)
    assert len(comparison(tmp_path / "ranking")) == 3


def test_a_private_row_says_its_epsilon(tmp_path: Path) -> None:
    write_run(tmp_path / "0", epsilon=2.5)
    assert list(comparison(tmp_path)["epsilon"]) == [2.5]


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "leave_one_out, legacy"},
        {"strategy": "fedadam"},
        {"dataset": "ml-1m"},
        {"federation": "centralized"},
        {"overrides": ["training.learning_rate=0.1"]},
    ],
)
def test_nothing_is_averaged_over_but_seeds(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_run(tmp_path / "0", seed=1)
    write_run(tmp_path / "1", seed=2, **changes)
    table = comparison(tmp_path)
    assert list(table["seeds"]) == [1, 1]
    assert len(set(table["label"])) == 2


def test_a_repeated_run_counts_once_and_an_unfinished_one_not_at_all(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=1, test={"hr@10": 0.9})
    write_run(tmp_path / "1", seed=1, test={"hr@10": 0.2})
    write_run(tmp_path / "2", seed=2, test={"hr@10": 0.4})
    write_run(tmp_path / "3", seed=3, status="interrupted", test={"hr@10": 0.9})
    row = comparison(tmp_path).iloc[0]
    assert row["seeds"] == 2
    assert row["hr@10"] == pytest.approx((0.2 + 0.4) / 2)


def test_without_a_completed_run_it_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", status="failed", error="out of memory")
    with pytest.raises(FedrecError, match="completed"):
        comparison(tmp_path)


def test_the_best_comes_first_and_leaky_ones_last(tmp_path: Path) -> None:
    values = {"a": 0.1, "b": 0.3, "c": 0.2}
    for model, value in values.items():
        write_run(tmp_path / model, model=model, test={"ndcg@10": value})
    protocol, test = "leave_one_out, legacy", {"ndcg@10": 0.9}
    write_run(tmp_path / "leaky", model="a", protocol=protocol, test=test)
    assert list(comparison(tmp_path)["label"]) == ["b", "c", "a", "a (leaky protocol)"]


def test_of_errors_the_lowest_comes_first(tmp_path: Path) -> None:
    for model, value in {"a": 1.1, "b": 0.9}.items():
        write_run(tmp_path / model, model=model, task="rating", test={"rmse": value})
    assert list(comparison(tmp_path)["label"]) == ["b", "a"]


def test_what_failed_names_nothing_of_what_did_not(tmp_path: Path) -> None:
    write_config(write_run(tmp_path / "sound", model="mf"), model__name="mf", batch_size=8, seed=1)
    refused = write_run(tmp_path / "refused", model="mf", status="failed")
    write_config(refused, model__name="mf", batch_size=0, seed=1)
    assert list(comparison(tmp_path)["label"]) == ["mf"]


def test_engines_tell_runs_apart_only_where_nothing_else_does(tmp_path: Path) -> None:
    for number, (engine, rounds) in enumerate([("simulation", 5), ("in_process", 3)]):
        told = {"model__name": "mf", "federation__name": engine, "num_rounds": rounds, "seed": 1}
        write_config(write_run(tmp_path / str(number), model="mf"), **told)
    assert set(comparison(tmp_path)["label"]) == {"mf, num_rounds=5", "mf, num_rounds=3"}


def test_settings_are_all_in_which_the_runs_of_a_model_differ(tmp_path: Path) -> None:
    for number, dim in enumerate((8, 16)):
        run = write_run(tmp_path / str(number), model="mf")
        write_config(run, model__name="mf", model__dim=dim, num_rounds=dim, seed=1)
    write_config(write_run(tmp_path / "2"), model__name="ncf", model__dim=3, num_rounds=3, seed=1)
    table = comparison(tmp_path).set_index("label")
    assert table.loc["mf, model.dim=8", "settings"] == "model.dim=8 num_rounds=8"
    assert table.loc["ncf", "settings"] == ""


def _lines(text: str) -> list[list[str]]:
    table = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_best_is_bold_and_the_unbeaten_marked(tmp_path: Path) -> None:
    for model, ranks in {"good": GOOD, "bad": BAD}.items():
        write_tested(tmp_path / model, ranks, model=model)
    write_tested(tmp_path / "twin", GOOD, model="twin", test={"hr@10": 0.5, "ndcg@10": 0.25})
    heading, _, *rows = _lines(leaderboard_markdown(leaderboard_table(tmp_path)))
    cells = {row[0]: dict(zip(heading, row, strict=True)) for row in rows}
    assert cells["good"]["hr@10"] == f"**{hit_rate(GOOD):.4f}**"
    assert cells["twin"]["hr@10"] == "0.5000 ≈"
    assert cells["twin"]["p (hr@10)"] == "1.000"
    assert cells["bad"]["hr@10"] == f"{hit_rate(BAD):.4f}"
    assert cells["good"]["p (hr@10)"] == ""


def test_a_readable_row_tells_its_costs(tmp_path: Path) -> None:
    write_run(tmp_path / "0")
    heading, _, row = _lines(leaderboard_markdown(comparison(tmp_path)))
    cells = dict(zip(heading, row, strict=True))
    assert cells == {
        "run": "ncf",
        "seeds": "1",
        "hr@10": "0.2500",
        "rounds": "2",
        "clients a round": "4",
        "kB down": "2",
        "kB up": "1",
        "MB in all": "3",
        "seconds": "2",
        "clients / s": "1,234",
        "memory MB": "321",
        "epsilon": "∞",
    }


def test_what_differs_is_a_column_and_what_does_not_is_said_below(tmp_path: Path) -> None:
    write_run(tmp_path / "0", strategy="fedavg")
    write_run(tmp_path / "1", strategy="fedadam")
    text = leaderboard_markdown(comparison(tmp_path))
    heading, _, *rows = _lines(text)
    assert {row[heading.index("strategy")] for row in rows} == {"fedavg", "fedadam"}
    caption = text.splitlines()[-1]
    assert "partition user" in caption
    assert "split_sha256 abc" in caption
    assert "fedavg" not in caption

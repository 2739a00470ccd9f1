"""Laws of the way to the centralised run: when a run got near it, and what that had cost."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.reports.sweeps import (
    first_reaching,
    time_to_accuracy_markdown,
    time_to_accuracy_table,
)
from tests.helpers.run_folders import write_config, write_run

CURVE = pd.Series({0: 0.1, 2: 0.3, 4: 0.2, 6: 0.5})
VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def _wrote(folder: Path, later: Mapping[int, float], **changes: Any) -> None:
    """A run of mf whose validation hr@10 is .1, then .3, then as told; 4 clients, 3 MB in all."""
    told = {"model": "mf", "federation": "in_process"} | changes
    run = write_run(folder, **told)
    for round_, value in later.items():
        run.add_round(round_, "validation", {"hr@10": value}, 4)
    names = {f"{group}__name": told[group] for group in ("model", "federation")}
    asked = {"clients_per_round": told.get("clients_per_round"), "seed": told.get("seed", 1)}
    write_config(run, **names, **asked, training__local_epochs=2, training__learning_rate=20.0)


def _goal(folder: Path, *best: float) -> None:
    """Centralised runs, a seed each."""
    for seed, value in enumerate(best, start=1):
        place = folder / "centralized" / str(seed)
        _wrote(place, {4: value}, federation="centralized", num_clients=1, seed=seed)


@pytest.mark.parametrize(("goal", "round_"), [(0.1, 0), (0.2, 2), (0.3, 2), (0.31, 6), (0.5, 6)])
def test_the_goal_is_reached_at_the_first_round_that_is_there(goal: float, round_: int) -> None:
    assert first_reaching(CURVE, goal) == round_


def test_what_is_never_reached_has_no_round() -> None:
    assert isnan(first_reaching(CURVE, 0.51))


@given(VALUES, st.floats(0, 1))
def test_before_the_round_that_reaches_it_nothing_does(values: list[float], goal: float) -> None:
    there = first_reaching(pd.Series(values), goal)
    if isnan(there):
        assert max(values) < goal
    else:
        assert values[int(there)] >= goal
        assert all(value < goal for value in values[: int(there)])


def test_the_goal_is_a_share_of_the_best_that_centralised_runs_reach(tmp_path: Path) -> None:
    _goal(tmp_path, 0.4, 0.6)
    _wrote(tmp_path / "a", {})
    goal = time_to_accuracy_table(tmp_path, "hr@10")["goal"].item()
    assert goal == pytest.approx(0.95 * (0.4 + 0.6) / 2)


def test_bytes_are_counted_up_to_the_round_that_reaches_it(tmp_path: Path) -> None:
    _goal(tmp_path, 0.5)
    _wrote(tmp_path / "a", {4: 0.5, 8: 0.6}, num_rounds=12)
    row = time_to_accuracy_table(tmp_path, "hr@10").iloc[0]
    assert row["rounds"] == 4
    assert row["megabytes"] == pytest.approx(3.0 / 4 * 4 / 12)
    assert (row["rounds_run"], row["megabytes_run"]) == (12, 3.0 / 4)


def test_a_run_that_stopped_early_sent_its_bytes_in_fewer_rounds(tmp_path: Path) -> None:
    _goal(tmp_path, 0.5)
    _wrote(tmp_path / "a", {4: 0.5}, num_rounds=100, stopped_at=6)
    row = time_to_accuracy_table(tmp_path, "hr@10").iloc[0]
    assert row["megabytes"] == pytest.approx(3.0 / 4 * 4 / 6)
    assert row["rounds_run"] == 6


def test_a_run_that_never_gets_there_is_told_with_how_far_it_went(tmp_path: Path) -> None:
    _goal(tmp_path, 0.9)
    _wrote(tmp_path / "a", {4: 0.5}, num_rounds=12)
    table = time_to_accuracy_table(tmp_path, "hr@10")
    row = table.iloc[0]
    assert row["reached"] == 0
    assert isnan(row["rounds"])
    assert isnan(row["megabytes"])
    text = time_to_accuracy_markdown(table, "hr@10")
    assert "| never (12) | never (0.8) |" in text
    assert f"mf {0.95 * 0.9:.4f}" in text


def test_seeds_are_averaged_only_where_each_got_there(tmp_path: Path) -> None:
    _goal(tmp_path, 0.5)
    for seed, reached in ((1, 4), (2, 6)):
        _wrote(tmp_path / f"a{seed}", {reached: 0.5}, seed=seed, num_rounds=10)
    assert time_to_accuracy_table(tmp_path, "hr@10")["rounds"].item() == (4 + 6) / 2
    _wrote(tmp_path / "a3", {}, seed=3, num_rounds=10)
    table = time_to_accuracy_table(tmp_path, "hr@10")
    assert (table["reached"].item(), table["seeds"].item()) == (2, 3)
    assert table["rounds"].isna().all()
    assert "2 of 3 seeds (10)" in time_to_accuracy_markdown(table, "hr@10")


def test_where_nobody_says_how_many_everyone_takes_part(tmp_path: Path) -> None:
    _goal(tmp_path, 0.5)
    _wrote(tmp_path / "all", {})
    _wrote(tmp_path / "few", {}, clients_per_round=2)
    table = time_to_accuracy_table(tmp_path, "hr@10")
    assert list(table["clients_per_round"]) == [4, 2]
    assert list(table["local_epochs"]) == [2, 2]
    assert list(table["learning_rate"]) == [20.0, 20.0]


def test_without_a_centralised_run_of_the_model_there_is_no_goal(tmp_path: Path) -> None:
    _wrote(tmp_path / "a", {})
    _wrote(tmp_path / "ncf", {}, federation="centralized", num_clients=1, model="ncf")
    assert time_to_accuracy_table(tmp_path, "hr@10").empty


def test_an_error_has_no_share_that_could_be_reached(tmp_path: Path) -> None:
    _goal(tmp_path, 0.5)
    _wrote(tmp_path / "a", {})
    for folder in (tmp_path / "a", tmp_path / "centralized" / "1"):
        rounds = folder / "rounds.csv"
        rounds.write_text(rounds.read_text().replace("hr@10", "rmse"))
    assert time_to_accuracy_table(tmp_path, "rmse").empty

"""Laws of the simulated clock: when a run got near the one that waits for all, and nothing else."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.build import compare
from fedrec_flower.reports.sweeps import async_curves, async_markdown, async_table
from tests.helpers.run_folders import write_config, write_run


def _wrote(
    folder: Path, curve: Mapping[float, float], buffer_size: int | None, **changes: Any
) -> None:
    """A run of four clients whose validation hr@10 is as told at those seconds, from round 3 on."""
    run = write_run(folder, **({"model": "mf", "strategy": "fedbuff"} | changes))
    for round_, (seconds, value) in enumerate(((1.0, 0.1), (2.0, 0.3), *curve.items()), start=1):
        run.add_round(round_, "train", {"simulated_seconds": seconds}, 4)
        if round_ > 2:  # these two are there
            run.add_round(round_, "validation", {"hr@10": value}, 4)
    told = {"model__name": changes.get("model", "mf"), "seed": changes.get("seed", 1)}
    write_config(run, **told, strategy__buffer_size=buffer_size)


def _row(folder: Path, label: str) -> "pd.Series[Any]":
    table = async_table(folder, "hr@10")
    return table[table["label"] == f"mf, strategy.buffer_size={label}"].iloc[0]


def test_the_goal_is_a_share_of_the_best_that_waits_for_all(tmp_path: Path) -> None:
    _wrote(tmp_path / "all", {30.0: 0.4, 60.0: 0.5}, 4)
    _wrote(tmp_path / "some", {4.0: 0.48, 8.0: 0.9}, 1)
    table = async_table(tmp_path, "hr@10")
    assert list(table["waits_for_all"]) == [True, False]
    assert list(table["goal"]) == pytest.approx([0.95 * 0.5] * 2)
    assert list(table["seconds"]) == [60.0, 4.0]
    assert list(table["best"]) == [0.5, 0.9]
    assert list(table["test"]) == [0.25, 0.25]  # as the summary says, whatever is best
    assert list(table["seconds_run"]) == [60.0, 8.0]


def test_whoever_calls_few_at_once_and_awaits_them_waits_for_all(tmp_path: Path) -> None:
    _wrote(tmp_path / "0", {4.0: 0.5}, 2, clients_per_round=2)
    assert async_table(tmp_path, "hr@10")["waits_for_all"].all()


def test_where_nobody_waits_for_all_the_best_run_sets_the_goal(tmp_path: Path) -> None:
    _wrote(tmp_path / "a", {4.0: 0.5}, 2)
    _wrote(tmp_path / "b", {8.0: 0.8}, None)
    table = async_table(tmp_path, "hr@10")
    assert list(table["goal"]) == pytest.approx([0.95 * 0.8] * 2)
    assert "of any run" in async_markdown(table, "hr@10")


def test_time_is_a_mean_over_seeds_only_where_each_got_there(tmp_path: Path) -> None:
    for seed, seconds in ((1, 40.0), (2, 60.0)):
        _wrote(tmp_path / f"all{seed}", {seconds: 0.5}, 4, seed=seed)
    for seed, value in ((1, 0.5), (2, 0.4)):
        _wrote(tmp_path / f"some{seed}", {9.0: value}, 1, seed=seed)
    assert _row(tmp_path, "4")["seconds"] == (40 + 60) / 2
    row = _row(tmp_path, "1")
    assert isnan(row["seconds"])
    assert (row["reached"], row["seeds"]) == (1, 2)
    assert "| 1 of 2 seeds (9.0) |" in async_markdown(async_table(tmp_path, "hr@10"), "hr@10")


def test_each_model_has_a_goal_of_its_own(tmp_path: Path) -> None:
    _wrote(tmp_path / "mf", {4.0: 0.5}, 4)
    _wrote(tmp_path / "ncf", {4.0: 0.8}, 4, model="ncf")
    assert list(async_table(tmp_path, "hr@10")["goal"]) == pytest.approx([0.95 * 0.5, 0.95 * 0.8])


def test_the_untrained_model_stands_at_the_start(tmp_path: Path) -> None:
    _wrote(tmp_path / "0", {4.0: 0.5}, 4)
    with (tmp_path / "0" / "rounds.csv").open("a") as file:
        file.write("0,validation,hr@10,0.01,4\n")
    shown = async_curves(tmp_path, "hr@10")
    assert dict(zip(shown["round"], shown["seconds"], strict=True)) == {0: 0, 1: 1, 2: 2, 3: 4}


def test_without_a_clock_or_with_an_error_there_is_no_table(tmp_path: Path) -> None:
    write_run(tmp_path / "plain")
    assert async_curves(tmp_path, "hr@10").empty
    assert async_table(tmp_path, "hr@10").empty
    _wrote(tmp_path / "timed", {4.0: 0.5}, 4)
    rounds = tmp_path / "timed" / "rounds.csv"
    rounds.write_text(rounds.read_text().replace("hr@10", "rmse"))
    assert async_table(tmp_path, "rmse").empty
    assert set(async_curves(tmp_path, "rmse")["run"]) == {"timed"}


def _drawn(figure: Figure) -> dict[str, list[list[float]]]:
    return {
        str(line.get_label()): np.asarray(line.get_xydata()).tolist()
        for line in figure.axes[0].lines
    }


def test_lines_are_means_over_seeds_of_time_and_of_value(tmp_path: Path) -> None:
    for seed, (seconds, value) in ((1, (40.0, 0.5)), (2, (60.0, 0.7))):
        _wrote(tmp_path / str(seed), {seconds: value}, 4, seed=seed)
    shown, table = async_curves(tmp_path, "hr@10"), async_table(tmp_path, "hr@10")
    figure = plots.accuracy_against_clock(shown, table, "hr@10")
    lines = _drawn(figure)
    assert lines["mf"] == [[1, 0.1], [2, 0.3], [(40 + 60) / 2, pytest.approx((0.5 + 0.7) / 2)]]
    assert lines["95% of the best that waits for all"][0][1] == pytest.approx(0.95 * 0.6)
    assert figure.axes[0].get_xlabel() == "simulated seconds since the start"


def test_long_times_are_told_in_hours(tmp_path: Path) -> None:
    _wrote(tmp_path / "0", {36000.0: 0.5}, 4)
    figure = plots.accuracy_against_clock(async_curves(tmp_path, "hr@10"), pd.DataFrame(), "hr@10")
    assert _drawn(figure)["mf"][-1] == [10, 0.5]
    assert figure.axes[0].get_xlabel() == "simulated hours since the start"


def test_compare_shows_a_clock_where_runs_have_one(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "plain", model="ncf")
    compare(tmp_path / "runs", tmp_path / "before", "hr@10")
    _wrote(tmp_path / "runs" / "timed", {4.0: 0.5}, 4)
    compare(tmp_path / "runs", tmp_path / "after", "hr@10")
    files = {f"clock.{ending}" for ending in ("csv", "md", "png", "svg")}
    assert not files & {path.name for path in (tmp_path / "before").iterdir()}
    assert files <= {path.name for path in (tmp_path / "after").iterdir()}

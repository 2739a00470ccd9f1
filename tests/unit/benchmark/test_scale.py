"""The scale table measures every stage at every shape, each in a separate process."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

from fedrec_flower.benchmark.costs import opening, training
from fedrec_flower.benchmark.measuring import in_new_process, peak_memory_mb
from fedrec_flower.benchmark.scale import SHAPES, Shape, scale_table

TINY = Shape("tiny", num_users=120, num_items=300, num_interactions=1800)


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in the process of the test: a new one takes seconds for imports."""
    return function(*arguments)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return scale_table([TINY], here)


def test_scale_table_measures_every_stage(
    table: pd.DataFrame,
) -> None:
    assert list(zip(table["measured"], table["clients"], strict=True)) == [
        ("preparation", 120),
        ("opening again", 120),
        ("round", 1),
        ("round", 120),
        ("full ranking", 120),
        ("full ranking and 99 negatives", 120),
    ]


def test_scale_table_has_positive_times_and_memory(table: pd.DataFrame) -> None:
    numbers = table.drop(columns=["shape", "measured", "first_seconds"])
    assert (numbers > 0).all(axis=None)
    assert (table["first_seconds"].notna() == (table["measured"] == "round")).all()


def test_time_per_client_is_the_inverse_of_clients_per_time(table: pd.DataFrame) -> None:
    seconds_per_client = table["cpu_milliseconds_per_client"] / 1000
    np.testing.assert_allclose(seconds_per_client * table["clients_per_cpu_second"], 1.0)


def test_prepared_data_are_reused(tmp_path: Path) -> None:
    dataset = f"{TINY.overrides} dataset.cache_dir={tmp_path}"
    opening(dataset)
    prepared = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    opening(dataset)
    training(dataset, cohort=5, rounds=1)
    assert prepared == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}


def test_training_stops_after_the_measured_rounds(tmp_path: Path) -> None:
    # A run of a million rounds, of which two are asked for.
    cost = training(f"{TINY.overrides} dataset.cache_dir={tmp_path}", cohort=5, rounds=1)
    assert 0 < cost["seconds"] < 10


def test_cohorts_ascend_from_one_percent_to_all() -> None:
    assert [shape.cohorts for shape in SHAPES] == [
        [60, 1_000, 6_040],
        [1_000, 1_625, 10_000, 100_000, 162_541],
    ]


def test_in_new_process_runs_in_a_single_threaded_process() -> None:
    assert in_new_process(os.getpid) != os.getpid()
    assert in_new_process(os.getenv, "OMP_NUM_THREADS") == "1"


def test_peak_memory_includes_freed_memory() -> None:
    before = psutil.Process().memory_info().rss
    block = np.ones(25_000_000)  # 200 MB, every page touched
    del block
    # Linux counts pages a few at a time, per thread: a megabyte may be missing.
    assert peak_memory_mb() > before / 1e6 + 190

"""Laws of what counts as another run: a repetition does not, another seed or fold does."""

from typing import Any

import pandas as pd
import pytest

from fedrec_flower.reports.run_frames import count_repeats, drop_repeated_runs


def _frame(*runs: dict[str, Any]) -> pd.DataFrame:
    """Two rows of each run, called by its place."""
    same = {"configuration": "c", "label": "mf", "seed": 1, "split_sha256": "fold 1"}
    rows = [same | {"run": str(n)} | told for n, told in enumerate(runs)]
    return pd.DataFrame([row for row in rows for _ in range(2)])


@pytest.mark.parametrize(
    "changes", [{"seed": 2}, {"split_sha256": "fold 2"}, {"configuration": "d", "label": "ncf"}]
)
def test_what_differs_in_anything_is_another_run(changes: dict[str, Any]) -> None:
    frame = _frame({}, changes)
    pd.testing.assert_frame_equal(drop_repeated_runs(frame), frame)


def test_of_repeated_runs_all_rows_of_the_last_count() -> None:
    assert list(drop_repeated_runs(_frame({}, {}, {"seed": 2}))["run"]) == ["1", "1", "2", "2"]


def test_a_repetition_that_failed_does_not_stand_for_the_run_that_completed() -> None:
    frame = _frame({"status": "completed"}, {"status": "completed"}, {"status": "failed"})
    assert set(drop_repeated_runs(frame)["run"]) == {"1"}


def test_runs_without_a_known_split_repeat_each_other() -> None:
    frame = _frame({"split_sha256": None}, {"split_sha256": None})
    assert set(drop_repeated_runs(frame)["run"]) == {"1"}


def test_the_table_of_one_run_is_left_as_it_is() -> None:
    frame = _frame({}, {}).drop(columns="run")
    assert drop_repeated_runs(frame) is frame


@pytest.mark.parametrize(
    ("told", "count", "word"),
    [
        ([(1, "a"), (2, "a"), (3, "a")], 3, "seeds"),
        ([(1, "a"), (2, "b")], 2, "seeds"),  # a split that follows the seed
        ([(1, "a"), (1, "b")], 2, "folds"),
        ([(1, "a"), (1, "b"), (2, "a")], 3, "runs"),
        ([(1, "a")], 1, "seeds"),
    ],
)
def test_runs_are_called_by_what_they_differ_in(
    told: list[tuple[int, str]], count: int, word: str
) -> None:
    frame = _frame(*({"seed": seed, "split_sha256": split} for seed, split in told))
    counts, differing = count_repeats(frame)
    assert (counts.to_dict(), differing) == ({"mf": count}, word)

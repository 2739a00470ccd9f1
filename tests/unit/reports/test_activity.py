"""Laws of groups by activity: who is in them, and that nobody counts twice."""

from math import log2, sqrt
from typing import Any

import pandas as pd
import pytest

from fedrec_flower.reports.activity import activity_markdown, by_activity

METRICS = "ndcg@10", "hr@10"


def _users(ranks: list[int], num_train: list[int], **changes: Any) -> pd.DataFrame:
    """A run with a user for each rank."""
    users = {"user_id": range(len(ranks)), "num_train": num_train, "rank_full": ranks}
    same: dict[str, Any] = {"dataset": "d", "label": "mf", "run": "0", "seed": 1}
    return pd.DataFrame(users).assign(**(same | changes))


def _group(table: pd.DataFrame, group: str, label: str = "mf") -> "pd.Series[Any]":
    return table[(table["group"] == group) & (table["label"] == label)].iloc[0]


def test_a_group_has_mean_and_standard_error_over_its_users() -> None:
    table = by_activity(_users([1, 2, 11, 99], [10, 29, 30, 500]), *METRICS)
    few = _group(table, "fewer than 30")
    gains = 1.0, 1 / log2(2 + 1)
    assert few["users"] == 2
    assert few["ndcg@10"] == pytest.approx(sum(gains) / 2)
    assert few["ndcg@10_se"] == pytest.approx((gains[0] - gains[1]) / sqrt(2) / sqrt(2))
    assert (few["hr@10"], few["hr@10_se"]) == (1.0, 0.0)
    everybody = _group(table, "all users")
    assert (everybody["users"], everybody["hr@10"]) == (4, 2 / 4)


def test_fifths_hold_everybody_once_from_the_least_to_the_most_active() -> None:
    table = by_activity(_users([1] * 20, [*range(20, 40)]), "hr@10")
    fifths = table[table["fifth"].notna()]
    assert list(fifths["fifth"]) == [1, 2, 3, 4, 5]
    assert list(fifths["group"])[::4] == ["20 to 23", "36 to 39"]
    assert fifths["users"].sum() == 20
    assert _group(table, "fewer than 30")["users"] == 10


def test_where_nobody_has_few_interactions_no_row_says_so() -> None:
    assert "fewer than 30" not in set(by_activity(_users([1, 1], [30, 31]), "hr@10")["group"])


def test_a_user_of_several_seeds_counts_once_with_the_mean() -> None:
    runs = [_users([rank, 1], [7, 7], run=str(seed), seed=seed) for seed, rank in ((1, 1), (2, 99))]
    row = _group(by_activity(pd.concat(runs, ignore_index=True), "hr@10"), "all users")
    assert (row["users"], row["seeds"], row["repeated"]) == (2, 2, "seeds")
    assert row["hr@10"] == (1 / 2 + 1) / 2


def test_folds_are_called_folds() -> None:
    runs = [_users([1], [7], run=fold, split_sha256=fold) for fold in ("u1", "u2")]
    assert set(by_activity(pd.concat(runs, ignore_index=True), "hr@10")["repeated"]) == {"folds"}


@pytest.mark.parametrize(("metric", "first"), [("hr@10", "good"), ("rmse", "bad")])
def test_the_best_with_everybody_comes_first(metric: str, first: str) -> None:
    of_models = [
        _users([rank], [7], label=label, run=label, squared_error=1.0 / rank, num_ratings=1)
        for label, rank in (("bad", 99), ("good", 1))
    ]
    table = by_activity(pd.concat(of_models, ignore_index=True), metric)
    assert table["label"].iloc[0] == first


def test_to_read_there_is_a_row_a_model_and_a_column_a_group() -> None:
    text = activity_markdown(by_activity(_users([1, 99], [10, 40]), *METRICS))
    assert text.startswith(
        "ndcg@10\n\n| run | all users (n = 2) | fewer than 30 (n = 1) | 10 (n = 1)"
    )
    assert "| mf | 0.5000 ± 0.5000 | 1.0000 ± 0.0000 | 1.0000 ± 0.0000 |" in text
    assert "\nhr@10\n\n| run |" in text
    assert "averaged" not in text

"""Laws of the leaderboard: what it says of a row is what the row's runs say."""

from itertools import product
from math import inf, log2
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedrec_flower.errors import FedrecError
from fedrec_flower.results import comparison, leaderboard, readable
from fedrec_flower.results.significance import mcnemar, paired_bootstrap
from fedrec_flower.seeding import generator
from tests.run_folders import Ranks, write_config, write_run

USERS = [f"user {number}" for number in range(40)]
GOOD: Ranks = {user: [1 + number % 12] for number, user in enumerate(USERS)}
BAD: Ranks = {user: [1 + number % 40] for number, user in enumerate(USERS)}


def _hit_rate(ranks: Ranks) -> float:
    return sum(rank <= 10 for (rank,) in ranks.values()) / len(ranks)


def _gain(rank: int) -> float:
    return 1 / log2(rank + 1) if rank <= 10 else 0.0


def _tested(folder: Path, ranks: Ranks, **changes: Any) -> None:
    """A run whose summary says what its users say."""
    hr = _hit_rate(ranks)
    ndcg = sum(_gain(rank) for (rank,) in ranks.values()) / len(ranks)
    write_run(folder, ranks, **({"test": {"hr@10": hr, "ndcg@10": ndcg}} | changes))


# --- the table --------------------------------------------------------------------------------


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


def test_settings_are_all_in_which_the_runs_of_a_model_differ(tmp_path: Path) -> None:
    for number, dim in enumerate((8, 16)):
        run = write_run(tmp_path / str(number), model="mf")
        write_config(run, model__name="mf", model__dim=dim, num_rounds=dim, seed=1)
    write_config(write_run(tmp_path / "2"), model__name="ncf", model__dim=3, num_rounds=3, seed=1)
    table = comparison(tmp_path).set_index("label")
    assert table.loc["mf, model.dim=8", "settings"] == "model.dim=8 num_rounds=8"
    assert table.loc["ncf", "settings"] == ""


# --- the tests --------------------------------------------------------------------------------


def test_each_row_is_tested_against_the_best(tmp_path: Path) -> None:
    _tested(tmp_path / "0", GOOD, model="good")
    _tested(tmp_path / "1", BAD, model="bad")
    table = leaderboard(tmp_path).set_index("label")
    assert table.loc["good", ["hr@10_p", "ndcg@10_p"]].isna().all()
    good, bad = (np.array([_gain(rank) for (rank,) in of.values()]) for of in (GOOD, BAD))
    expected = paired_bootstrap(good, bad, generator(0, "paired-bootstrap"))
    assert table["ndcg@10_p_raw"]["bad"] == pytest.approx(expected)
    assert expected < 0.05
    assert table["hr@10_p_raw"]["bad"] == pytest.approx(mcnemar(good > 0, bad > 0))
    assert table["hr@10_p"]["bad"] == table["hr@10_p_raw"]["bad"]  # the only test


def test_twins_differ_by_chance_for_sure(tmp_path: Path) -> None:
    for model, seed in product(("one", "other"), (1, 2, 3)):
        _tested(tmp_path / f"{model}{seed}", GOOD, model=model, seed=seed)
    table = leaderboard(tmp_path)
    assert list(table.loc[1, ["hr@10_p", "ndcg@10_p"]]) == [1, 1]


def test_more_rivals_ask_for_more(tmp_path: Path) -> None:
    for model, ranks in {"good": GOOD, "bad": BAD, "worse": BAD}.items():
        _tested(tmp_path / model, ranks, model=model)
    bad = leaderboard(tmp_path).set_index("label").loc["bad"]
    assert bad["hr@10_p"] == pytest.approx(2 * bad["hr@10_p_raw"])


def test_seeds_make_no_more_users(tmp_path: Path) -> None:
    """Thrice the same seed is no more evidence than once."""
    for model, ranks in {"good": GOOD, "bad": BAD}.items():
        _tested(tmp_path / "once" / model, ranks, model=model)
        for seed in (1, 2, 3):
            _tested(tmp_path / "thrice" / f"{model}{seed}", ranks, model=model, seed=seed)
    once, thrice = (leaderboard(tmp_path / name).loc[1] for name in ("once", "thrice"))
    assert thrice["ndcg@10_p"] == once["ndcg@10_p"]
    assert thrice["hr@10_p"] == pytest.approx(min(1.0, once["hr@10_p"] * 3 / 2))


def test_of_repeated_runs_the_last_is_tested(tmp_path: Path) -> None:
    _tested(tmp_path / "0", BAD, model="one")
    _tested(tmp_path / "1", GOOD, model="one")
    _tested(tmp_path / "2", GOOD, model="other")
    assert leaderboard(tmp_path).loc[1, "ndcg@10_p"] == 1


def test_several_held_out_items_of_a_user_are_one_user(tmp_path: Path) -> None:
    """The best of two ranks hits; both at the top are all there is to gain."""
    one: Ranks = {user: [2, 1] if number % 2 else [40, 10] for number, user in enumerate(USERS)}
    other: Ranks = {user: [1, 2] if number % 2 else [10, 50] for number, user in enumerate(USERS)}
    test = {"hr@10": 1.0, "ndcg@10": 0.5}
    for model, ranks in {"one": one, "other": other}.items():
        write_run(tmp_path / model, ranks, model=model, test=test)
    assert list(leaderboard(tmp_path).loc[1, ["hr@10_p", "ndcg@10_p"]]) == [1, 1]


def test_rows_of_other_protocols_are_no_rivals(tmp_path: Path) -> None:
    _tested(tmp_path / "0", BAD, model="honest")
    _tested(tmp_path / "1", GOOD, model="leaky", protocol="leave_one_out, legacy")
    table = leaderboard(tmp_path)
    assert table[["hr@10_p", "ndcg@10_p"]].isna().all().all()


def test_unequal_splits_are_refused_by_name(tmp_path: Path) -> None:
    _tested(tmp_path / "0", GOOD, model="one")
    _tested(tmp_path / "1", GOOD, model="other", split_sha256="xyz")
    with pytest.raises(FedrecError, match=r"one \(0\) and other \(1\) .* unequal splits .* seed 1"):
        leaderboard(tmp_path)


def test_a_split_that_follows_the_seed_asks_for_the_same_seeds(tmp_path: Path) -> None:
    for model, seed in (("one", 1), ("one", 2), ("other", 1)):
        changes = {"model": model, "seed": seed, "split_sha256": f"of seed {seed}"}
        _tested(tmp_path / f"{model}{seed}", GOOD, **changes)
    with pytest.raises(FedrecError, match="other did not run with seed 2"):
        leaderboard(tmp_path)
    _tested(tmp_path / "other2", GOOD, model="other", seed=2, split_sha256="of seed 2")
    assert list(leaderboard(tmp_path)["seeds"]) == [2, 2]


def test_one_split_for_all_seeds_lets_seeds_differ(tmp_path: Path) -> None:
    for model, seed in (("one", 1), ("one", 2), ("other", 1), ("third", 3)):
        _tested(tmp_path / f"{model}{seed}", GOOD, model=model, seed=seed)
    table = leaderboard(tmp_path).set_index("label")
    assert list(table.loc[["other", "third"], "ndcg@10_p"]) == [1, 1]
    assert table["hr@10_p"]["other"] == 1
    assert table["hr@10_p"].isna()["third"]  # no run to compare with seed by seed


def test_other_users_are_refused(tmp_path: Path) -> None:
    _tested(tmp_path / "0", GOOD, model="one")
    _tested(tmp_path / "1", dict(list(GOOD.items())[1:]), model="other")
    with pytest.raises(FedrecError, match="not tested on the same users"):
        leaderboard(tmp_path)


def test_a_split_that_holds_out_users_by_seed_tests_others_with_each(tmp_path: Path) -> None:
    everybody = sorted(GOOD)  # as the table has them
    for seed, users in ((1, everybody[:30]), (2, everybody[20:])):
        for model, ranks in (("good", GOOD), ("bad", BAD)):
            own = {user: ranks[user] for user in users}
            changes = {"model": model, "seed": seed, "split_sha256": f"of seed {seed}"}
            _tested(tmp_path / f"{model}{seed}", own, **changes)
    row = leaderboard(tmp_path).set_index("label").loc["bad"]
    hits = [[ranks[user][0] <= 10 for user in everybody] for ranks in (GOOD, BAD)]
    one, other = (np.array(values) for values in hits)
    by_seed = [mcnemar(one[:30], other[:30]), mcnemar(one[20:], other[20:])]
    assert row["hr@10_p_raw"] == min(1.0, max(by_seed))  # both of two are their majority
    gains = [np.array([_gain(ranks[user][0]) for user in everybody]) for ranks in (GOOD, BAD)]
    expected = paired_bootstrap(gains[0], gains[1], generator(0, "paired-bootstrap"))
    assert row["ndcg@10_p_raw"] == pytest.approx(expected)


def test_ratings_have_no_ranks_to_test(tmp_path: Path) -> None:
    for model in ("a", "b"):
        run = write_run(tmp_path / model, model=model, task="rating", test={"rmse": 1.0})
        errors = {"user_id": ["a"], "squared_error": [1.0], "num_ratings": [1]}
        run.write_table("per_user", pd.DataFrame(errors))
    assert not [name for name in leaderboard(tmp_path) if str(name).endswith("_p")]


# --- to be read -------------------------------------------------------------------------------


def _lines(text: str) -> list[list[str]]:
    table = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_best_is_bold_and_the_unbeaten_marked(tmp_path: Path) -> None:
    for model, ranks in {"good": GOOD, "bad": BAD}.items():
        _tested(tmp_path / model, ranks, model=model)
    _tested(tmp_path / "twin", GOOD, model="twin", test={"hr@10": 0.5, "ndcg@10": 0.25})
    heading, _, *rows = _lines(readable(leaderboard(tmp_path)))
    cells = {row[0]: dict(zip(heading, row, strict=True)) for row in rows}
    assert cells["good"]["hr@10"] == f"**{_hit_rate(GOOD):.4f}**"
    assert cells["twin"]["hr@10"] == "0.5000 ≈"
    assert cells["twin"]["p (hr@10)"] == "1.000"
    assert cells["bad"]["hr@10"] == f"{_hit_rate(BAD):.4f}"
    assert cells["good"]["p (hr@10)"] == ""


def test_a_readable_row_tells_its_costs(tmp_path: Path) -> None:
    write_run(tmp_path / "0")
    heading, _, row = _lines(readable(comparison(tmp_path)))
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
    text = readable(comparison(tmp_path))
    heading, _, *rows = _lines(text)
    assert {row[heading.index("strategy")] for row in rows} == {"fedavg", "fedadam"}
    caption = text.splitlines()[-1]
    assert "partition user" in caption
    assert "split_sha256 abc" in caption
    assert "fedavg" not in caption

"""Each row against the best: whom it is compared with, and how sure that is."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.core.random import generator
from fedrec_flower.evaluation.significance import mcnemar, paired_bootstrap
from fedrec_flower.reports.headline import leaderboard_markdown
from fedrec_flower.reports.leaderboard import leaderboard_table
from tests.helpers.run_folders import Ranks, write_run
from tests.helpers.tested_runs import BAD, GOOD, USERS, gain, write_tested


def test_each_row_is_tested_against_the_best(tmp_path: Path) -> None:
    write_tested(tmp_path / "0", GOOD, model="good")
    write_tested(tmp_path / "1", BAD, model="bad")
    table = leaderboard_table(tmp_path).set_index("label")
    assert table.loc["good", ["hr@10_p", "ndcg@10_p"]].isna().all()
    good, bad = (np.array([gain(rank) for (rank,) in of.values()]) for of in (GOOD, BAD))
    expected = paired_bootstrap(good, bad, generator(0, "paired-bootstrap"))
    assert table["ndcg@10_p_raw"]["bad"] == pytest.approx(expected)
    assert expected < 0.05
    assert table["hr@10_p_raw"]["bad"] == pytest.approx(mcnemar(good > 0, bad > 0))
    assert table["hr@10_p"]["bad"] == table["hr@10_p_raw"]["bad"]  # the only test


def test_twins_differ_by_chance_for_sure(tmp_path: Path) -> None:
    for model, seed in product(("one", "other"), (1, 2, 3)):
        write_tested(tmp_path / f"{model}{seed}", GOOD, model=model, seed=seed)
    table = leaderboard_table(tmp_path)
    assert list(table.loc[1, ["hr@10_p", "ndcg@10_p"]]) == [1, 1]


def test_more_rivals_ask_for_more(tmp_path: Path) -> None:
    for model, ranks in {"good": GOOD, "bad": BAD, "worse": BAD}.items():
        write_tested(tmp_path / model, ranks, model=model)
    bad = leaderboard_table(tmp_path).set_index("label").loc["bad"]
    assert bad["hr@10_p"] == pytest.approx(2 * bad["hr@10_p_raw"])


def test_seeds_make_no_more_users(tmp_path: Path) -> None:
    """Thrice the same seed is no more evidence than once."""
    for model, ranks in {"good": GOOD, "bad": BAD}.items():
        write_tested(tmp_path / "once" / model, ranks, model=model)
        for seed in (1, 2, 3):
            write_tested(tmp_path / "thrice" / f"{model}{seed}", ranks, model=model, seed=seed)
    once, thrice = (leaderboard_table(tmp_path / name).loc[1] for name in ("once", "thrice"))
    assert thrice["ndcg@10_p"] == once["ndcg@10_p"]
    assert thrice["hr@10_p"] == pytest.approx(min(1.0, once["hr@10_p"] * 3 / 2))


def test_runs_that_share_no_seed_are_said_not_to_be_tested(tmp_path: Path) -> None:
    write_tested(tmp_path / "good", GOOD, model="good", seed=1)
    write_tested(tmp_path / "bad", BAD, model="bad", seed=2)
    told = leaderboard_markdown(leaderboard_table(tmp_path)).splitlines()
    assert "not tested" not in told[2]
    assert "not tested" in told[3]


def test_of_repeated_runs_the_last_is_tested(tmp_path: Path) -> None:
    write_tested(tmp_path / "0", BAD, model="one")
    write_tested(tmp_path / "1", GOOD, model="one")
    write_tested(tmp_path / "2", GOOD, model="other")
    assert leaderboard_table(tmp_path).loc[1, "ndcg@10_p"] == 1


def test_several_held_out_items_of_a_user_are_one_user(tmp_path: Path) -> None:
    """The best of two ranks hits; both at the top are all there is to gain."""
    one: Ranks = {user: [2, 1] if number % 2 else [40, 10] for number, user in enumerate(USERS)}
    other: Ranks = {user: [1, 2] if number % 2 else [10, 50] for number, user in enumerate(USERS)}
    test = {"hr@10": 1.0, "ndcg@10": 0.5}
    for model, ranks in {"one": one, "other": other}.items():
        write_run(tmp_path / model, ranks, model=model, test=test)
    assert list(leaderboard_table(tmp_path).loc[1, ["hr@10_p", "ndcg@10_p"]]) == [1, 1]


def test_rows_of_other_protocols_are_no_rivals(tmp_path: Path) -> None:
    write_tested(tmp_path / "0", BAD, model="honest")
    write_tested(tmp_path / "1", GOOD, model="leaky", protocol="leave_one_out, legacy")
    table = leaderboard_table(tmp_path)
    assert table[["hr@10_p", "ndcg@10_p"]].isna().all().all()


def test_unequal_splits_are_refused_by_name(tmp_path: Path) -> None:
    write_tested(tmp_path / "0", GOOD, model="one")
    write_tested(tmp_path / "1", GOOD, model="other", split_sha256="xyz")
    with pytest.raises(FedrecError, match=r"one \(0\) and other \(1\) .* unequal splits .* seed 1"):
        leaderboard_table(tmp_path)


def test_a_split_that_follows_the_seed_asks_for_the_same_seeds(tmp_path: Path) -> None:
    for model, seed in (("one", 1), ("one", 2), ("other", 1)):
        changes = {"model": model, "seed": seed, "split_sha256": f"of seed {seed}"}
        write_tested(tmp_path / f"{model}{seed}", GOOD, **changes)
    with pytest.raises(FedrecError, match="other has no run with seed 2"):
        leaderboard_table(tmp_path)
    write_tested(tmp_path / "other2", GOOD, model="other", seed=2, split_sha256="of seed 2")
    assert list(leaderboard_table(tmp_path)["seeds"]) == [2, 2]


def test_one_split_for_all_seeds_lets_seeds_differ(tmp_path: Path) -> None:
    for model, seed in (("one", 1), ("one", 2), ("other", 1), ("third", 3)):
        write_tested(tmp_path / f"{model}{seed}", GOOD, model=model, seed=seed)
    table = leaderboard_table(tmp_path).set_index("label")
    assert list(table.loc[["other", "third"], "ndcg@10_p"]) == [1, 1]
    assert table["hr@10_p"]["other"] == 1
    assert table["hr@10_p"].isna()["third"]  # no run to compare with seed by seed


def test_other_users_are_refused(tmp_path: Path) -> None:
    write_tested(tmp_path / "0", GOOD, model="one")
    write_tested(tmp_path / "1", dict(list(GOOD.items())[1:]), model="other")
    with pytest.raises(FedrecError, match="not tested on the same users"):
        leaderboard_table(tmp_path)


def test_a_split_that_holds_out_users_by_seed_tests_others_with_each(tmp_path: Path) -> None:
    everybody = sorted(GOOD)  # as the table has them
    for seed, users in ((1, everybody[:30]), (2, everybody[20:])):
        for model, ranks in (("good", GOOD), ("bad", BAD)):
            own = {user: ranks[user] for user in users}
            changes = {"model": model, "seed": seed, "split_sha256": f"of seed {seed}"}
            write_tested(tmp_path / f"{model}{seed}", own, **changes)
    row = leaderboard_table(tmp_path).set_index("label").loc["bad"]
    hits = [[ranks[user][0] <= 10 for user in everybody] for ranks in (GOOD, BAD)]
    one, other = (np.array(values) for values in hits)
    by_seed = [mcnemar(one[:30], other[:30]), mcnemar(one[20:], other[20:])]
    assert row["hr@10_p_raw"] == min(1.0, max(by_seed))  # both of two are their majority
    gains = [np.array([gain(ranks[user][0]) for user in everybody]) for ranks in (GOOD, BAD)]
    expected = paired_bootstrap(gains[0], gains[1], generator(0, "paired-bootstrap"))
    assert row["ndcg@10_p_raw"] == pytest.approx(expected)


def test_ratings_have_no_ranks_to_test(tmp_path: Path) -> None:
    for model in ("a", "b"):
        run = write_run(tmp_path / model, model=model, task="rating", test={"rmse": 1.0})
        errors = {"user_id": ["a"], "squared_error": [1.0], "num_ratings": [1]}
        run.write_table("per_user", pd.DataFrame(errors))
    assert not [name for name in leaderboard_table(tmp_path) if str(name).endswith("_p")]

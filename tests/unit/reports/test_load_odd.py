"""Odd ids come back as they were written, and an odd run takes no other run with it."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.experiment.compatibility import validate_config
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.reports.activity import by_activity
from fedrec_flower.reports.leaderboard import comparison, leaderboard_table
from fedrec_flower.reports.load import load_per_user, load_runs, load_summaries, read_table
from tests.helpers.run_folders import write_config, write_run

GUESSED = ["0", "00", "000", "1.0", "1", "1e3", "NA", "null", "nan", "None", "N/A", "True", "-inf"]
IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def test_ids_that_look_like_something_else_stay_apart(tmp_path: Path) -> None:
    """F1: ids are read back from our own tables as they were written."""
    write_run(tmp_path / "run", {user: [1 + place] for place, user in enumerate(GUESSED)})
    per_user = load_per_user(tmp_path / "run")
    assert per_user["user_id"].tolist() == GUESSED
    told = by_activity(per_user, "hr@10")
    (everyone,) = told.loc[told["group"] == "all users", "hr@10"]
    assert everyone == pytest.approx(10 / len(GUESSED))


@given(st.lists(IDS, min_size=1, max_size=8, unique=True))
def test_every_id_comes_back_as_it_was_written(ids: list[str]) -> None:
    """F1: ids are read back from our own tables as they were written."""
    frame = pd.DataFrame({"user_id": ids, "item_id": ids[::-1], "score": 0.1})
    with TemporaryDirectory() as folder:
        RunFolder(Path(folder)).write_table("recommendations", frame)
        back = read_table(Path(folder) / "recommendations.csv")
    assert back["user_id"].tolist() == ids
    assert back["item_id"].tolist() == ids[::-1]
    assert back["score"].tolist() == [0.1] * len(ids)


def test_missing_names_are_missing_and_others_are_text(tmp_path: Path) -> None:
    """F1: ids are read back from our own tables as they were written."""
    frame = pd.DataFrame({"item_id": ["7", "NA"], "title": [None, "NA"], "rank": [1, 2]})
    RunFolder(tmp_path).write_table("recommendations", frame)
    back = read_table(tmp_path / "recommendations.csv")
    assert back["title"].isna().tolist() == [True, False]
    assert back["title"][1] == "NA"
    assert back["rank"].tolist() == [1, 2]


def test_users_are_compared_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    ranks = {str(user): [1 + user % 13] for user in range(30)}
    for model, shift in (("mf", 0), ("ncf", 3)):
        shifted = {user: [rank + shift for rank in own] for user, own in ranks.items()}
        run = write_run(tmp_path / "numbers" / model, shifted, model=model)
        write_config(run, model__name=model)
        padded = {f"{int(user):03}": own for user, own in shifted.items()}
        run = write_run(tmp_path / "padded" / model, padded, model=model)
        write_config(run, model__name=model)
    numbers, padded_ = (leaderboard_table(tmp_path / name) for name in ("numbers", "padded"))
    pd.testing.assert_series_equal(numbers["hr@10_p"], padded_["hr@10_p"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 267241860018763092437112387102937410293),
        ("seed", "one"),
        ("seed", 1.5),
        ("selected_round", [2]),
        ("model", {"name": "mf"}),
        ("test", [0.25]),
        ("test", {"hr@10": "high"}),
        ("test", {"hr@10": {"mean": 0.25}}),
        ("seconds", 3),
    ],
)
def test_one_odd_run_is_skipped_and_the_others_are_read(
    tmp_path: Path, name: str, value: Any
) -> None:
    """F17: one odd run does not make a whole folder unreadable."""
    write_run(tmp_path / "odd", **{name: value})
    write_run(tmp_path / "sound", seed=7)
    for load in (load_runs, load_summaries, load_per_user, comparison):
        with pytest.warns(UserWarning, match=rf"odd is skipped: {name} in summary.json is not"):
            found = load(tmp_path)
        assert set(found["seed"].astype(str)) == {"7"}


def test_a_run_whose_tables_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    """F17: one odd run does not make a whole folder unreadable."""
    write_run(tmp_path / "sound")
    odd = write_run(tmp_path / "odd")
    (odd.path / "rounds.csv").write_text("round,phase\n1,train\n")
    (odd.path / "per_user.csv").write_bytes(b"\xff\xfe\x00")
    for load in (load_runs, load_per_user):
        with pytest.warns(UserWarning, match="odd is skipped: "):
            assert set(load(tmp_path)["run"]) == {"sound"}


def test_a_seed_that_cannot_be_read_back_is_refused_at_the_start() -> None:
    """F17: one odd run does not make a whole folder unreadable."""
    config, _ = compose([f"seed={2**63}"])
    with pytest.raises(ConfigError, match=r"seed=9223372036854775808 is impossible: give 9223"):
        validate_config(config, deployed=False)

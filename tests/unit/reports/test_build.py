"""Comparing runs: one command makes table and figures of what the run folders hold."""

from pathlib import Path

import pandas as pd
import pytest

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.reports.build import choose, compare, main
from fedrec_flower.reports.load import load_summaries
from tests.helpers.run_folders import write_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models and two seeds, and one of them without federation."""
    folder = tmp_path_factory.mktemp("runs")
    cache = f"dataset.cache_dir={folder / 'cache'}"
    for words in (["model=mf"], ["model=ncf"], ["model=mf", "federation=centralized"]):
        for seed in (1, 2):
            name = "-".join([*words, str(seed)])
            config, _ = compose(["experiment=smoke", *words, f"seed={seed}", cache])
            run(config, RunFolder.create(folder / name))
    return folder


def test_a_table_and_figures_come_from_run_folders_alone(runs: Path, tmp_path: Path) -> None:
    text = compare(runs, tmp_path, None)
    assert (tmp_path / "comparison.md").read_text(encoding="utf-8") == text
    table = pd.read_csv(tmp_path / "comparison.csv")
    assert sorted(table["label"]) == ["mf", "mf, federation=centralized", "ncf"]
    assert list(table["seeds"]) == [2, 2, 2]
    assert table["ndcg@10"].is_monotonic_decreasing
    assert table["ndcg@10_p"].isna().sum() == 1  # the best
    groups = pd.read_csv(tmp_path / "activity.csv")
    everybody = groups[groups["group"] == "all users"]
    assert list(everybody["label"]) == list(table["label"])
    assert list(everybody["ndcg@10"]) == pytest.approx(list(table["ndcg@10"]))
    assert (tmp_path / "activity.md").exists()
    figures = {path.stem for path in tmp_path.glob("*.png")}
    assert figures == {path.stem for path in tmp_path.glob("*.svg")}
    assert figures == {"convergence", "comparison", "activity", "megabytes"}


def test_the_same_runs_give_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    for name in ("once", "again"):
        compare(runs, tmp_path / name, "hr@10_99neg")
    for file in (tmp_path / "once").iterdir():
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes(), file.name


def test_where_nothing_is_sent_no_figure_shows_traffic(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "0", num_clients=1)
    compare(tmp_path / "runs", tmp_path / "shown", None)
    assert not (tmp_path / "shown" / "megabytes.png").exists()


def test_nothing_to_compare_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FedrecError, match=str(tmp_path)):
        compare(tmp_path, tmp_path / "shown", None)


def test_an_unknown_metric_is_one_clear_sentence(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "0")
    with pytest.raises(FedrecError, match=r"hr@7.*choose"):
        compare(tmp_path / "runs", tmp_path / "shown", "hr@7")


def test_a_file_in_the_place_of_the_folder_is_one_clear_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "0")
    taken = tmp_path / "taken"
    taken.touch()
    monkeypatch.setattr("sys.argv", ["compare", str(tmp_path / "runs"), "--to", str(taken)])
    with pytest.raises(SystemExit, match=f"error: --to {taken} cannot hold the table"):
        main()


def test_choosing_looks_at_validation_and_not_at_test(runs: Path, tmp_path: Path) -> None:
    text = choose(runs, tmp_path, "ndcg@10")
    assert (tmp_path / "choices.md").read_text(encoding="utf-8") == text
    table, known = pd.read_csv(tmp_path / "choices.csv"), load_summaries(runs)
    mf = table[table["model"] == "mf"]
    assert mf["ndcg@10"].is_monotonic_decreasing
    assert set(table) == {"model", "settings", "seeds", "selected_round", "ndcg@10"}
    of_ncf = known.loc[known["model"] == "ncf", "validation.ndcg@10"].mean()
    assert table.loc[table["model"] == "ncf", "ndcg@10"].item() == pytest.approx(of_ncf)


def test_choosing_by_what_no_run_has_is_one_clear_sentence(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(FedrecError, match="validation hr@7"):
        choose(runs, tmp_path, "hr@7")


def test_choosing_counts_folds_as_the_leaderboard_does(tmp_path: Path) -> None:
    for fold in ("u1", "u2"):
        overrides = [f"split.fold={fold}"]
        folder = tmp_path / "runs" / fold
        write_run(folder, task="rating", split_sha256=fold, overrides=overrides)
    choose(tmp_path / "runs", tmp_path, "hr@10")
    assert list(pd.read_csv(tmp_path / "choices.csv")["seeds"]) == [2]

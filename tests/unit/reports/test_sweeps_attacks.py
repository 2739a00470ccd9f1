"""Laws of the table and the figure of attacks by defences."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.build import compare
from fedrec_flower.reports.sweeps import attack_markdown, attack_table
from tests.helpers.run_folders import write_config, write_run

SAME = {"model__name": "mf", "federation__name": "in_process", "strategy__name": "fedadam"}


def _wrote(folder: Path, exposure: float, **settings: Any) -> None:
    """A run of four clients in which so many honest users were shown a target."""
    achieved = {"exposure@10": exposure, "ndcg@10_honest": 0.05, "num_targets": 1, "malicious": 1}
    seed = settings.get("seed", 1)
    run = write_run(folder, attack=achieved, seed=seed, test={"hr@10": 0.04})
    write_config(run, **(SAME | {"attack__malicious": 0.25} | settings))


def _grid(folder: Path) -> Path:
    values = {("watch", "fedadam"): 0.0, ("popular", "fedadam"): 0.25, ("popular", "krum"): 0.125}
    for (attack, strategy), value in values.items():
        share = 0.0 if attack == "watch" else 0.25
        names = {"attack__name": attack, "strategy__name": strategy, "attack__malicious": share}
        _wrote(folder / "runs" / attack / strategy, value, **names)
    return folder / "runs"


def test_a_row_is_the_mean_over_seeds(tmp_path: Path) -> None:
    for seed, value in ((1, 0.25), (2, 0.75)):
        _wrote(tmp_path / str(seed), value, attack__name="random", seed=seed)
    (row,) = attack_table(tmp_path).to_dict("records")
    assert (row["attack"], row["malicious"], row["strategy"]) == ("random", 0.25, "fedadam")
    assert row["exposure"] == (0.25 + 0.75) / 2
    assert (row["ndcg"], row["k"], row["seeds"]) == (0.05, 10, 2)


def test_attacks_stand_from_nobody_to_those_who_know_most(tmp_path: Path) -> None:
    for name in ("of_my_own", "fedrecattack", "popular", "watch", "random"):
        _wrote(tmp_path / name, 0.5, attack__name=name)
    for share in (0.05, 0.01):
        _wrote(tmp_path / str(share), 0.5, attack__name="popular", attack__malicious=share)
    table = attack_table(tmp_path)
    names = ["watch", "random", "popular", "popular", "popular", "fedrecattack", "of_my_own"]
    assert list(table["attack"]) == names
    assert list(table["malicious"][2:5]) == [0.01, 0.05, 0.25]


def test_namesakes_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    for boost in (1.0, 2.0):
        _wrote(tmp_path / str(boost), 0.5, attack__name="explicit_boosting", attack__boost=boost)
    told = [f"explicit_boosting boost={boost}" for boost in (1.0, 2.0)]
    assert list(attack_table(tmp_path)["attack"]) == told


def test_the_table_has_a_row_an_attack_and_a_column_a_strategy(tmp_path: Path) -> None:
    lines = attack_markdown(attack_table(_grid(tmp_path))).splitlines()
    assert lines[0] == "| attack | malicious | fedadam | krum |"
    assert lines[2] == "| watch | 0% | 0.0% (0.0500) |  |"
    assert lines[3] == "| popular | 25% | 25.0% (0.0500) | 12.5% (0.0500) |"


def test_without_watched_targets_there_is_no_table(tmp_path: Path) -> None:
    write_config(write_run(tmp_path / "a"), **SAME)
    assert attack_table(tmp_path).empty


def test_lists_of_several_lengths_are_not_compared(tmp_path: Path) -> None:
    _wrote(tmp_path / "a", 0.5)
    achieved = {"exposure@5": 0.5, "ndcg@5_honest": 0.1}
    write_config(write_run(tmp_path / "b", attack=achieved), **SAME)
    with pytest.raises(FedrecError, match="exposure@10, exposure@5: compare lists of one length"):
        attack_table(tmp_path)


def _drawn(folder: Path) -> Figure:
    return plots.attacks_on_defences(attack_table(_grid(folder)))


def test_the_figure_tells_each_number_once_and_leaves_out_what_is_missing(tmp_path: Path) -> None:
    left, right = _drawn(tmp_path).axes
    assert [text.get_text() for text in left.texts] == ["0.0", "25.0", "12.5"]
    assert [text.get_text() for text in right.texts] == ["0.050"] * 3
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["watch", "popular, 25%"]


def test_strategies_stand_from_the_most_exposed_among_attacks_that_all_faced(
    tmp_path: Path,
) -> None:
    runs = _grid(tmp_path)
    worse = {"attack__name": "fedrecattack", "strategy__name": "krum"}
    _wrote(runs / "worse", 1.0, **worse)
    left, _ = plots.attacks_on_defences(attack_table(runs)).axes
    assert [tick.get_text() for tick in left.get_xticklabels()] == ["fedadam", "krum"]


def test_compare_shows_attacks_where_they_differ(tmp_path: Path) -> None:
    compare(_grid(tmp_path), tmp_path / "shown", "hr@10")
    made = {path.name for path in (tmp_path / "shown").glob("attacks.*")}
    assert made == {"attacks.csv", "attacks.md", "attacks.png", "attacks.svg"}

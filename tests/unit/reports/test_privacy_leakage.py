"""Laws of tables and figure of what the curious learn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.build import compare
from fedrec_flower.reports.headline import leaderboard_markdown
from fedrec_flower.reports.leaderboard import comparison
from fedrec_flower.reports.load import load_summaries
from fedrec_flower.reports.run_frames import SEEDED_CAVEAT
from tests.helpers.run_folders import write_config, write_run

PLAIN = {"auc": 1.0, "exposed": "update", "update/auc": 1.0, "sum/auc": 0.6}
SECRET = PLAIN | {"auc": 0.6, "exposed": "sum"}
NOISY = PLAIN | {"auc": 0.5, "exposed": "release", "release/auc": 0.5}


def _wrote(folder: Path, found: dict[str, Any], mechanism: str, seed: int = 1, **told: Any) -> None:
    run = write_run(folder, attack=found, seed=seed, label=mechanism, **told)
    write_config(run, model__name="mf", federation__name="in_process", privacy__name=mechanism)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    folder = tmp_path / "runs"
    _wrote(folder / "a", PLAIN, "none")
    _wrote(folder / "b", SECRET | {"auc": 0.5, "sum/auc": 0.5}, "secret", seed=1)
    _wrote(folder / "c", SECRET | {"auc": 0.7, "sum/auc": 0.7}, "secret", seed=2)
    _wrote(folder / "d", NOISY, "noisy")
    return folder


def drawn(runs: Path) -> Figure:
    return plots.privacy_leakage(load_summaries(runs))


def test_every_number_of_an_attack_is_a_column_over_seeds(runs: Path) -> None:
    table = comparison(runs).set_index("attack/exposed")
    assert table.loc["sum", "attack/auc"] == pytest.approx((0.5 + 0.7) / 2)
    assert table.loc["sum", "attack/auc_sd"] == pytest.approx(0.1 * 2**0.5)
    assert table.loc["release", "attack/release/auc"] == 0.5
    assert table["attack/release/auc"].isna()["update"]


def test_what_attacks_came_to_is_no_metric_of_the_model(runs: Path) -> None:
    text = leaderboard_markdown(comparison(runs))
    assert "attack: auc" in text
    assert "Figures of attacks are lower bounds" in text
    assert "0.6000 ± 0.1414" in text
    assert "**1.0000**" not in text  # the best attack is nothing to be proud of


def test_runs_that_nobody_attacked_have_no_such_column(tmp_path: Path) -> None:
    write_run(tmp_path / "0")
    assert not [name for name in comparison(tmp_path) if str(name).startswith("attack/")]
    assert not plots.has_inference_results(load_summaries(tmp_path))
    with pytest.raises(FedrecError, match="attack=interaction_inference"):
        drawn(tmp_path)


def test_a_row_is_a_mechanism_and_those_that_tell_most_come_first(runs: Path) -> None:
    axes = drawn(runs).axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert [row.rpartition("privacy=")[2].rpartition(", ")[2] for row in rows] == [
        *("none", "secret", "noisy"),
    ]


def test_what_is_exposed_is_filled_and_the_rest_is_hollow(runs: Path) -> None:
    axes = drawn(runs).axes[0]
    bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    points = [
        (round(float(np.asarray(line.get_xdata())[0]), 3), line.get_markerfacecolor() != "white")
        for line in (bar.lines[0] for bar in bars)
        if line is not None
    ]
    assert points == [
        *[(1.0, True), (0.6, False)],  # none: message, sum
        *[(1.0, False), (0.6, True)],  # secret
        *[(1.0, False), (0.6, False), (0.5, True)],  # noisy: and release
    ]


def test_membership_is_a_figure_with_one_view(tmp_path: Path) -> None:
    _wrote(tmp_path / "a", {"auc": 0.9, "num_members": 3}, "none")
    axes = drawn(tmp_path).axes[0]
    assert axes.get_xlabel() == "AUC over users"
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["the published model"]


def test_comparing_runs_that_were_spied_on_draws_the_figure(runs: Path, tmp_path: Path) -> None:
    compare(runs, tmp_path / "shown", None)
    assert (tmp_path / "shown" / "curious.png").exists()
    write_run(tmp_path / "quiet" / "0")
    compare(tmp_path / "quiet", tmp_path / "other", None)
    assert not (tmp_path / "other" / "curious.png").exists()


def test_a_run_that_was_spied_on_again_counts_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _wrote(tmp_path / name, {"auc": 0.9 if name == "b" else 0.1}, "none")
    (bar,) = (c for c in drawn(tmp_path).axes[0].containers if isinstance(c, ErrorbarContainer))
    assert bar.lines[0] is not None
    assert np.asarray(bar.lines[0].get_xdata()).tolist() == [0.9]


@pytest.mark.parametrize("randomness", [None, "seeded", "private"])
def test_that_the_server_knows_the_seed_is_said_wherever_an_attack_on_a_seeded_run_is_shown(
    tmp_path: Path, randomness: str | None
) -> None:
    """Item 1: the server knows no draw of a client."""
    told: dict[str, Any] = (
        {} if randomness is None else {"randomness": randomness}
    )  # earlier versions said none
    _wrote(tmp_path / "a", PLAIN, "none", **told)
    _wrote(tmp_path / "b", SECRET, "secret", randomness="private")
    shown = " ".join(text.get_text() for text in drawn(tmp_path).texts)
    for text in (" ".join(shown.split()), leaderboard_markdown(comparison(tmp_path))):
        assert (SEEDED_CAVEAT in text) == (randomness != "private")
    table = comparison(tmp_path).set_index("attack/exposed")
    assert table.loc["update", "randomness"] == (randomness or "seeded")


def test_tables_of_guarantees_say_so_too_and_others_need_not(tmp_path: Path) -> None:
    """Item 1: the server knows no draw of a client."""
    for name, epsilon in (("guarded", 2.0), ("plain", None)):
        write_run(tmp_path / name / "0", epsilon=epsilon, delta=1e-5)
        text = leaderboard_markdown(comparison(tmp_path / name))
        assert (SEEDED_CAVEAT in text) == (name == "guarded")

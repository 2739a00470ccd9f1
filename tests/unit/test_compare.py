"""Comparing runs: what the table shows is what the run folders hold."""

from pathlib import Path

import pandas as pd
import pytest

from fedrec_flower.cli import compose
from fedrec_flower.compare import compare, headline
from fedrec_flower.errors import FedrecError
from fedrec_flower.experiment import run
from fedrec_flower.results import RunFolder


def test_the_headline_shows_what_differs_and_means_with_spread() -> None:
    table = pd.DataFrame(
        {
            "dataset": ["d", "d"],
            "model": ["mf", "ncf"],
            "seeds": [3, 1],
            "ndcg@10": [0.5, 0.25],
            "ndcg@10_sd": [0.125, float("nan")],
            "auc": [0.9, 0.9],
            "auc_sd": [0.0, 0.0],
        }
    )
    shown = headline(table)
    assert list(shown.columns) == ["model", "seeds", "ndcg@10"]
    assert list(shown["ndcg@10"]) == ["0.5000 ± 0.1250", "0.2500"]


def test_a_table_and_figures_come_from_run_folders_alone(tmp_path: Path) -> None:
    for seed in (1, 2):
        overrides = ["experiment=smoke", f"seed={seed}", "dataset.cache_dir=" + str(tmp_path)]
        config, _ = compose(overrides)
        run(config, RunFolder.create(tmp_path / "runs" / str(seed)))
    text = compare(tmp_path / "runs", tmp_path / "shown", "ndcg@10")
    assert "| mf | 2 |" in text
    assert (tmp_path / "shown" / "comparison.md").read_text() == text
    figures = {path.name for path in (tmp_path / "shown").glob("*.png")}
    assert figures == {"convergence.png", "comparison.png", "activity.png"}


def test_nothing_to_compare_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(FedrecError, match=str(tmp_path)):
        compare(tmp_path, tmp_path / "shown", "ndcg@10")

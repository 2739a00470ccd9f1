"""Run folders of the first layout of the package (version 0.1.0, synthetic data) stay usable."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import yaml

from fedrec_flower.core.instantiate import current_path
from fedrec_flower.reports.build import compare
from fedrec_flower.reports.load import load_per_user, load_runs, load_summaries
from fedrec_flower.reports.settings import digest, parse

if TYPE_CHECKING:
    from tests.integration.conftest import Command

OLD = Path(__file__).parents[1] / "data" / "run_folder_0_1_0"


def test_old_run_folder_is_loaded_and_compared(tmp_path: Path) -> None:
    assert load_runs(OLD)["value"].notna().all()
    assert list(load_summaries(OLD)["test.ndcg@10"]) == pytest.approx([0.2121179], abs=1e-7)
    assert len(load_per_user(OLD)) == 20
    assert "| mf |" in compare(OLD, tmp_path, None)


def test_old_run_and_a_run_of_today_are_one_experiment() -> None:
    """Only the class paths of the settings differ."""
    old = (OLD / "config.yaml").read_text()
    moved = yaml.safe_load(old)
    for group in ("dataset", "split", "partition", "federation"):
        path = moved[group]["_target_"]
        moved[group]["_target_"] = current_path(path)
        assert moved[group]["_target_"] != path
    assert digest(parse(old)) == digest(parse(yaml.safe_dump(moved)))


def test_old_configuration_is_repeated(command: "Command", tmp_path: Path) -> None:
    """Its class paths name rooms that have moved; its draws are other ones by now."""
    cache = f"dataset.cache_dir={tmp_path / 'cache'}"
    ended = command("--config-path", str(OLD), "output_dir=again", cache, cwd=tmp_path)
    assert ended.code == 0, ended.err
    old, repeated = (pd.read_csv(path / "rounds.csv") for path in (OLD, tmp_path / "again"))
    keys = ["round", "phase", "metric", "num_clients"]
    assert repeated[keys].equals(old[keys])
    old_losses, losses = (
        list(table.loc[table["metric"] == "loss", "value"]) for table in (old, repeated)
    )
    assert len(losses) > 0
    assert losses == pytest.approx(old_losses, rel=0.02)

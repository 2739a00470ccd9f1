"""Hyper-parameter search: Hydra sweepers optimise the validation metric that a job returns."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from fedrec_flower.reports.load import load_summaries

if TYPE_CHECKING:
    from tests.integration.conftest import Command

INSTALLED = find_spec("hydra_plugins") and find_spec("hydra_plugins.hydra_optuna_sweeper")


@pytest.mark.skipif(bool(INSTALLED), reason="the sweeper is installed")
def test_search_without_the_sweeper_names_the_extra_to_install(command: "Command") -> None:
    ended = command("-m", "hparams_search=mf")
    assert ended.err.splitlines()[-1] == (
        "error: hydra/sweeper=optuna is not installed: pip install 'fedrec-flower[search]'"
    )


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs the extra `search`")
@pytest.mark.filterwarnings("ignore")  # Optuna 2 uses deprecated parts of SQLAlchemy
def test_search_selects_the_trial_with_the_best_validation_metric(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    trials = ("hparams_search=mf", "hydra.sweeper.n_trials=3", "num_rounds=1")
    ended = command("-m", *smoke, *trials, f"output_dir={tmp_path}")
    assert ended.code == 0, ended.err
    best = yaml.safe_load((tmp_path / "optimization_results.yaml").read_text())
    summaries = load_summaries(tmp_path)
    assert len(summaries) == 3
    assert best["best_value"] == pytest.approx(summaries["validation.ndcg@10"].max())

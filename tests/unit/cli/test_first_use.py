"""A first run has defaults that fit, and clear messages."""

from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.interactions import Part
from fedrec_flower.experiment.callbacks import ProgressBar, RoundsTable
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.results import Evaluated, TrainedRound
from fedrec_flower.reports.headline import leaderboard_markdown
from fedrec_flower.reports.leaderboard import comparison
from fedrec_flower.reports.markdown import final_table
from tests.helpers.federations import _configured, _defaults
from tests.helpers.run_folders import write_run

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

PRIVATE = pytest.mark.parametrize("mechanism", ["central_dp", "local_dp"])


def printed(summary: dict[str, Any]) -> str:
    console = Console(file=StringIO(), width=120)
    console.print(final_table(summary))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@PRIVATE
def test_a6_privacy_selects_an_aggregation_that_fits(federate: "Federate", mechanism: str) -> None:
    ran = federate("model=mf", f"privacy={mechanism}", "num_rounds=1")
    assert ran.strategy.aggregation == "all_clients"
    assert ran.outcome.privacy["epsilon"] <= 8.0


@PRIVATE
def test_a6_privacy_rejects_touched_clients(federate: "Federate", mechanism: str) -> None:
    asked = "strategy.aggregation=touched_clients"
    with pytest.raises(ConfigError, match=r"touched_clients divides by their number"):
        federate("model=mf", f"privacy={mechanism}", asked, "num_rounds=1")


@pytest.mark.parametrize(
    ("words", "aggregation"),
    [
        (["privacy=none"], "touched_clients"),
        (["privacy=pseudo_items"], "touched_clients"),
        (["privacy=pseudo_items", "privacy.dense=true"], "all_clients"),
        (["strategy=fedprox", "privacy=central_dp"], "all_clients"),
        (["privacy=none", "strategy.aggregation=all_clients"], "all_clients"),
        (["privacy=central_dp", "model=ease"], None),  # sums are not averaged
    ],
)
def test_a6_default_aggregation_follows_from_privacy(
    words: list[str], aggregation: str | None
) -> None:
    config, _ = compose(words)
    assert config["strategy"].get("aggregation") == aggregation


def test_a6_epsilon_is_always_shown_with_delta(federate: "Federate", tmp_path: Path) -> None:
    assert "epsilon = 2.5, delta = 0.00053" in printed({"epsilon": 2.5, "delta": 5.34e-4})
    assert "none (epsilon = infinity)" in printed({"epsilon": None, "delta": 5.34e-4})
    write_run(tmp_path / "0", epsilon=2.5, delta=5.34e-4)
    table = comparison(tmp_path)
    assert list(table["delta"]) == [5.34e-4]
    assert "2.5 (0.00053)" in leaderboard_markdown(table)
    ran = federate("model=mf", "privacy=central_dp", "num_rounds=1")
    assert ran.watcher.more[1]["delta"] == ran.outcome.privacy["delta"] == 24**-1.1


def test_a12_progress_of_a_closed_form_model_shows_no_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callbacks = [ProgressBar(1, "ndcg@10"), RoundsTable(RunFolder.create(tmp_path / "run"))]
    metrics = {part: {"ndcg@10": 0.25} for part in (Part.VALIDATION, Part.TEST)}
    for loss in (float("nan"), 0.5):
        for callback in callbacks:
            callback.after_round(TrainedRound(1, loss, 24, {}, {}))
            callback.after_evaluation(Evaluated(1, "", {}, metrics, {}, 24, 24))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "round 1/1 validation ndcg@10 0.2500",
        "round 1/1 validation ndcg@10 0.2500 loss 0.5000",
    ]
    written = pd.read_csv(tmp_path / "run" / "rounds.csv")
    assert np.isnan(written["value"][0])  # the table stays as it was


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ("strategy=centralized",),
            r"strategy=centralized trains .* 24 clients: .*partition=single",
        ),
        (
            ("federation=centralized", "partition=silo_random"),
            r"federation=centralized trains .* clients: .*partition=single",
        ),
        (
            ("federation=centralized", "strategy=fedavg", "partition=user"),
            r"federation=centralized trains .* 24 clients",
        ),
        (("federation=centralized", "compression=int8"), r"compression=int8 has no effect"),
    ],
)
def test_a13_centralised_training_requires_one_client(
    words: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    small = [word for word in _defaults(words) if not word.startswith(("federation=", "strategy"))]
    federation = () if words[0].startswith("federation=") else ("federation=in_process",)
    cache = f"dataset.cache_dir={tmp_path / 'cache'}"
    config = _configured([*federation, *small, cache, "model=mf", *words])
    with pytest.raises(ConfigError, match=complaint):
        run(config | {"overrides": []}, RunFolder.create(tmp_path / "run"))


def test_a13_final_table_of_centralised_training_shows_no_bytes() -> None:
    sizes = {"bytes": {"down_per_client": 9e5, "up_per_client": 9e5, "total": 1e8}}
    assert "nothing: one client holds all the data" in printed(
        {"federation": "centralized", **sizes}
    )
    assert "900.0 kB down" in printed({"federation": "simulation", **sizes})


def test_a16_final_table_says_if_the_untrained_model_was_selected() -> None:
    said = printed({"selected_round": 0, "num_rounds": 2, "num_test_users": 5})
    assert "the untrained model was best on validation, so raise num_rounds" in said
    assert "untrained" not in printed({"selected_round": 1, "num_rounds": 2})
    assert "untrained" not in printed({"selected_round": 0, "num_rounds": 0})

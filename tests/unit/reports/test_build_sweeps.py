"""What runs were made to differ in is shown; what they were not, is not."""

from pathlib import Path
from typing import Any

import pytest

from fedrec_flower.reports.build import compare
from tests.helpers.run_folders import write_config, write_run

SPECIAL = {"heterogeneity", "goal", "upload"}
SAME: dict[str, Any] = {
    "model__name": "mf",
    "federation__name": "in_process",
    "strategy__name": "fedavg",
    "partition__name": "user",
    "compression__name": "none",
    "clients_per_round": None,
    "training__local_epochs": 1,
    "training__learning_rate": 1.0,
}
CENTRALIZED = {"federation__name": "centralized", "partition__name": "single"} | {
    "strategy__name": "centralized",
}
PARTITION, STRATEGY = {"partition__name": "silo_random"}, {"strategy__name": "fedadam"}
FEWER, COMPRESSION = {"clients_per_round": 2}, {"compression__name": "int8"}


def _shown(folder: Path, *runs: dict[str, Any]) -> set[str]:
    """The special figures of an ordinary run and these others."""
    for number, changes in enumerate(({}, *runs)):
        settings = SAME | changes
        told = {
            name.removesuffix("__name"): value
            for name, value in settings.items()
            if name.endswith("__name") or name == "clients_per_round"
        }
        told["num_clients"] = 1 if changes == CENTRALIZED else 4
        write_config(write_run(folder / "runs" / str(number), **told), **settings)
    compare(folder / "runs", folder / "shown", "hr@10")
    figures = {path.stem for path in (folder / "shown").glob("*.png")}
    tables = {path.stem for path in (folder / "shown").glob("*.md")} - {"comparison", "activity"}
    assert tables == (SPECIAL - {"upload"}) & figures
    return SPECIAL & figures


def test_strategies_on_partitions_are_shown_where_both_differ(tmp_path: Path) -> None:
    assert _shown(tmp_path, PARTITION, STRATEGY, PARTITION | STRATEGY) == {"heterogeneity"}


def test_the_way_to_the_goal_is_shown_where_there_is_one(tmp_path: Path) -> None:
    assert _shown(tmp_path, FEWER, CENTRALIZED) == {"goal"}


def test_the_upload_is_shown_where_compression_differs(tmp_path: Path) -> None:
    assert _shown(tmp_path, COMPRESSION) == {"upload"}


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param([STRATEGY], id="strategies alone"),
        pytest.param([PARTITION], id="partitions alone"),
        pytest.param([FEWER], id="clients a round without a goal"),
        pytest.param([CENTRALIZED, STRATEGY], id="a goal without clients a round"),
    ],
)
def test_no_other_sweep_shows_them(tmp_path: Path, runs: list[dict[str, Any]]) -> None:
    assert _shown(tmp_path, *runs) == set()

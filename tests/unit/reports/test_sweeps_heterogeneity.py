"""Laws of strategies on partitions: what is called what, and in which order it stands."""

from pathlib import Path
from typing import Any

import pytest

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.sweeps import heterogeneity_markdown, heterogeneity_table
from tests.helpers.run_folders import write_config, write_run


def _wrote(folder: Path, value: float, **settings: Any) -> None:
    """A run of four clients that reached a value of hr@10 on test."""
    run = write_run(folder, test={"hr@10": value}, seed=settings.get("seed", 1))
    names = {"model__name": "mf", "federation__name": "in_process", "strategy__name": "fedavg"}
    write_config(run, **(names | {"partition__name": "user"} | settings))


def test_a_row_is_mean_and_deviation_over_seeds(tmp_path: Path) -> None:
    for seed, value in ((1, 0.2), (2, 0.4)):
        _wrote(tmp_path / str(seed), value, seed=seed)
    row = heterogeneity_table(tmp_path, "hr@10").iloc[0]
    assert (row["partition"], row["strategy"]) == ("user", "fedavg")
    assert (row["num_clients"], row["seeds"]) == (4, 2)
    assert row["mean"] == pytest.approx((0.2 + 0.4) / 2)
    assert row["sd"] == pytest.approx((0.1**2 + 0.1**2) ** 0.5)
    assert row["se"] == 0.125


def test_partitions_stand_from_even_to_skewed(tmp_path: Path) -> None:
    _wrote(tmp_path / "user", 0.1)
    for alpha in (0.5, 0.1, 1.0):
        told = {"partition__name": "silo_dirichlet", "partition__alpha": alpha}
        _wrote(tmp_path / str(alpha), 0.1, **told)
    for name in ("silo_random", "silo_quantity", "silo_attribute", "of_my_own"):
        _wrote(tmp_path / name, 0.1, partition__name=name)
    assert list(heterogeneity_table(tmp_path, "hr@10")["partition"]) == [
        *("silo_random", "silo_quantity", "silo_attribute"),
        *("silo_dirichlet alpha=1.0", "silo_dirichlet alpha=0.5", "silo_dirichlet alpha=0.1"),
        *("user", "of_my_own"),
    ]


def test_what_is_always_the_same_is_not_said(tmp_path: Path) -> None:
    dirichlet = {"partition__name": "silo_dirichlet", "partition__alpha": 0.5}
    for mu in (0.1, 0.2):
        told = {"strategy__name": "fedprox", "strategy__mu": mu} | dirichlet
        _wrote(tmp_path / str(mu), 0.1, **told)
    _wrote(tmp_path / "fedavg", 0.1, **dirichlet)
    table = heterogeneity_table(tmp_path, "hr@10")
    assert set(table["partition"]) == {"silo_dirichlet"}
    assert list(table["strategy"]) == ["fedavg", "fedprox mu=0.1", "fedprox mu=0.2"]


def test_runs_that_differ_in_more_than_their_seed_are_not_averaged(tmp_path: Path) -> None:
    for rate in (1.0, 2.0):
        _wrote(tmp_path / str(rate), rate / 10, training__learning_rate=rate)
    table = heterogeneity_table(tmp_path, "hr@10").set_index("strategy")
    assert table["mean"].to_dict() == {
        "fedavg, training.learning_rate=1.0": 0.1,
        "fedavg, training.learning_rate=2.0": 0.2,
    }


def test_what_is_no_federation_is_left_out(tmp_path: Path) -> None:
    _wrote(tmp_path / "a", 0.1)
    told = {"federation__name": "centralized", "partition__name": "single"}
    _wrote(tmp_path / "b", 0.5, **told)
    assert list(heterogeneity_table(tmp_path, "hr@10")["partition"]) == ["user"]


def test_the_table_has_a_row_a_partition_and_a_column_a_strategy(tmp_path: Path) -> None:
    for partition, strategy, value in (
        ("user", "fedavg", 0.1),
        ("user", "fedadam", 0.2),
        ("silo_random", "fedadam", 0.3),
    ):
        told = {"partition__name": partition, "strategy__name": strategy}
        _wrote(tmp_path / partition / strategy, value, **told)
    lines = heterogeneity_markdown(heterogeneity_table(tmp_path, "hr@10"), "hr@10").splitlines()
    assert lines[0] == "| partition | clients | fedadam | fedavg |"
    assert lines[2:4] == ["| silo_random | 4 | 0.3000 |  |", "| user | 4 | 0.2000 | 0.1000 |"]


def test_a_metric_that_no_run_reports_is_told(tmp_path: Path) -> None:
    _wrote(tmp_path / "a", 0.1)
    with pytest.raises(FedrecError, match=r"no completed run .* reports hr@7"):
        heterogeneity_table(tmp_path, "hr@7")

"""A package adds a metric by an entry point, without a change in fedrec_flower."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.evaluation.metrics.base import Ranks
from fedrec_flower.evaluation.metrics.registry import metric_classes, parse_metric
from fedrec_flower.reports.figures.style import metric_label
from fedrec_flower.reports.per_user import metric_per_user

METRIC = '''
from dataclasses import dataclass
from typing import ClassVar

from fedrec_flower.evaluation.metrics.base import PerUser, Ranks, TopKMetric, ratio


@dataclass(frozen=True, slots=True)
class F1(TopKMetric):
    """Harmonic mean of precision and recall of the first k places."""

    kind: ClassVar[str] = "{kind}"
    label: ClassVar[str] = "F1 score"

    def __call__(self, ranks: Ranks) -> PerUser:
        return ratio(2 * self.hits(ranks), self.k * ranks.counted + ranks.num_held_out)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package `f1_metric` with the metric F1."""
    info = tmp_path / "f1_metric-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: f1-metric\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[fedrec_flower.metrics]\nf1 = f1_metric:F1\n")
    (tmp_path / "f1_metric.py").write_text(METRIC.format(kind="f1"))
    monkeypatch.syspath_prepend(tmp_path)
    metric_classes.cache_clear()
    yield tmp_path
    metric_classes.cache_clear()
    sys.modules.pop("f1_metric", None)


@pytest.mark.usefixtures("package")
def test_parse_metric_finds_a_metric_of_another_package() -> None:
    metric = parse_metric("f1@2")
    ranks = Ranks(np.array([1, 3]), np.array([0, 2]), np.array([9]))
    assert metric.name == "f1@2"
    assert metric(ranks).tolist() == [2 * 1 / (2 + 2)]


@pytest.mark.usefixtures("package")
def test_figures_and_per_user_tables_know_a_metric_of_another_package() -> None:
    table = pd.DataFrame({"run": "a", "seed": 1, "user_id": [5, 5], "rank_full": [3, 1]})
    assert metric_label("f1@2_99neg") == "F1 score@2 (99 negatives)"
    assert metric_per_user(table, "f1@2")["total"].tolist() == [0.5]


def test_metric_classes_refuses_a_kind_that_exists(package: Path) -> None:
    (package / "f1_metric.py").write_text(METRIC.format(kind="ndcg"))
    with pytest.raises(ConfigError, match="f1_metric:F1 has the kind ndcg, which exists"):
        metric_classes()

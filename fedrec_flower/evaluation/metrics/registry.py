"""Finds ranking metrics by name: those of this package, and those that other packages register."""

from difflib import get_close_matches
from functools import cache
from importlib.metadata import entry_points

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.evaluation.metrics.base import RankingMetric, TopKMetric
from fedrec_flower.evaluation.metrics.ranking import AUC, MAP, MRR, NDCG, HitRate, Precision, Recall

ENTRY_POINT_GROUP = "fedrec_flower.metrics"

_BUILT_IN: tuple[type[RankingMetric], ...] = (HitRate, Recall, Precision, NDCG, MRR, MAP, AUC)


@cache
def metric_classes() -> dict[str, type[RankingMetric]]:
    """Return all metric classes by kind, such as "ndcg".

    Raises:
        ConfigError: if a registered class is not a ranking metric, or its kind exists already.
    """
    classes = {metric.kind: metric for metric in _BUILT_IN}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        metric = point.load()
        if not (isinstance(metric, type) and issubclass(metric, RankingMetric)):
            raise ConfigError(f"{point.value} is no ranking metric: let it extend RankingMetric")
        if metric.kind in classes:
            raise ConfigError(f"{point.value} has the kind {metric.kind}, which exists: rename it")
        classes[metric.kind] = metric
    return classes


def parse_metric(name: str) -> RankingMetric:
    """Return the metric of a name such as "ndcg@10" or "auc".

    Raises:
        ConfigError: if there is no such metric or k is no integer of at least 1; lists the known.
    """
    classes = metric_classes()
    kind, at, k = name.partition("@")
    metric = classes.get(kind)
    if metric is not None and issubclass(metric, TopKMetric):
        if k.isdecimal():
            return metric(int(k))
    elif metric is not None and not at:
        return metric()
    example = k if k.isdecimal() else "10"
    close = get_close_matches(name.lower(), _names(example), n=1)
    hint = f", did you mean {close[0]}" if close else ""
    known = ", ".join(_names("k"))
    raise ConfigError(f"there is no metric {name}{hint}: choose from {known} (k at least 1)")


def metric_label(kind: str) -> str:
    """Return the name of a metric in figures, such as "NDCG" for "ndcg"."""
    metric = metric_classes().get(kind)
    return kind.capitalize() if metric is None else metric.label


def _names(k: str) -> list[str]:
    return [
        f"{kind}@{k}" if issubclass(metric, TopKMetric) else kind
        for kind, metric in metric_classes().items()
    ]

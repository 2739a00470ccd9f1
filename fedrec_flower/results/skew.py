"""Strategies on partitions of the same data, from even to skewed."""

from pathlib import Path
from typing import Any

import pandas as pd

from fedrec_flower.errors import FedrecError
from fedrec_flower.results.configuration import Settings, choice, differing, is_federated, said
from fedrec_flower.results.leaderboard import completed_once
from fedrec_flower.results.load import load_settings, load_summaries
from fedrec_flower.results.tables import markdown

# From silos that look alike to clients of one user, who has one taste; others stand behind them.
_BY_SKEW = ("silo_random", "silo_quantity", "silo_attribute", "silo_dirichlet", "user")
# Measures of skew; where the sign is negative, the smaller the more.
_MEASURES = {"partition.exponent": 1.0, "partition.alpha": -1.0}
_SHOWN = ("partition.", "strategy.")


def skewed(path: str | Path, metric: str) -> pd.DataFrame:
    """Put what each strategy reached on each partition side by side.

    Args:
        path: a folder with run folders at any depth; completed ones of federations count.
        metric: a test metric, taken at the round that validation selected.

    Returns:
        One row per partition and strategy, even partitions first: dataset, partition and strategy
        (with what sets them apart from namesakes), num_clients, mean, sd (standard deviation over
        seeds; missing for one seed), se (standard error over users, of one run) and seeds.

    Raises:
        FedrecError: if no completed run of a federation reports the metric.
    """
    runs, settings = completed_once(load_summaries(path)), load_settings(path)
    column = f"test.{metric}"
    known = runs[runs[column].notna()] if column in runs else runs.head(0)
    own = {key: settings[key] for key in known["configuration"] if is_federated(settings[key])}
    if not own:
        raise FedrecError(f"no completed run of a federation below {path} reports {metric}")
    every = list(own.values())
    rows = [
        _named(own[str(key)], every) | _measured(repeated, metric)
        for key, repeated in known.groupby("configuration")
        if key in own
    ]
    order = ["place", "measure", "partition", "strategy"]
    table = pd.DataFrame(rows).sort_values(order, kind="stable", na_position="first")
    return table.drop(columns=order[:2]).reset_index(drop=True)


def skewed_told(table: pd.DataFrame, metric: str) -> str:
    """Write the table of `skewed` as Markdown: a row a partition, a column a strategy."""
    spread = table["sd"].map(" ± {:.4f}".format).where(table["sd"].notna(), "")
    keys = ["partition", "num_clients"]
    wide = table.assign(cell=table["mean"].map("{:.4f}".format) + spread).pivot_table(
        index=keys, columns="strategy", values="cell", aggfunc="first", sort=False
    )
    shown = wide.reset_index().rename(columns={"num_clients": "clients"})
    seeds = ", ".join(map(str, sorted(set(table["seeds"]))))
    return markdown(shown) + (
        f"\nTest {metric} at the round that validation selected, from even partitions to skewed "
        f"ones; means over {seeds} seeds, ± their standard deviation.\n"
    )


def _named(settings: Settings, every: list[Settings]) -> dict[str, Any]:
    """What an experiment is called, and where its partition stands."""
    name = str(settings.get("partition.name"))
    rest = [key for key in differing(every) if not key.startswith(_SHOWN)]
    others = [said(settings, key) for key in rest if not key.endswith("_target_")]
    measures = [sign * settings[key] for key, sign in _MEASURES.items() if key in settings]
    return {
        "dataset": settings.get("dataset.name"),
        "partition": choice(settings, "partition", every),
        "strategy": ", ".join([choice(settings, "strategy", every), *others]),
        "place": _BY_SKEW.index(name) if name in _BY_SKEW else len(_BY_SKEW),
        "measure": measures[0] if measures else float("nan"),
    }


def _measured(runs: pd.DataFrame, metric: str) -> dict[str, Any]:
    values, error = runs[f"test.{metric}"], f"test_standard_error.{metric}"
    return {
        "num_clients": int(runs["num_clients"].iloc[0]),
        "mean": values.mean(),
        "sd": values.std(),
        "se": runs[error].mean() if error in runs else float("nan"),
        "seeds": len(values),
    }

"""Settings side by side by validation alone: what a search may look at."""

from pathlib import Path

import pandas as pd

from fedrec_flower.errors import FedrecError
from fedrec_flower.results.leaderboard import ERRORS, completed_once, told_apart
from fedrec_flower.results.load import load_settings, load_summaries
from fedrec_flower.results.tables import markdown


def choosing(path: str | Path, metric: str) -> pd.DataFrame:
    """Rank the settings of each model by a validation metric; test is not looked at.

    Args:
        path: a folder with run folders at any depth.
        metric: the metric that decides, such as `ndcg@10`.

    Returns:
        One row per configuration, each model's best first: model, settings (in which it differs
        from the model's others), seeds (how many, or how many folds), selected_round, and the
        metric, both means over seeds.

    Raises:
        FedrecError: if no completed run has the metric.
    """
    runs, column = completed_once(load_summaries(path)), f"validation.{metric}"
    if column not in runs or runs.empty:
        raise FedrecError(f"no completed run below {path} has validation {metric}")
    settings = load_settings(path)
    rows = [
        {
            "model": group["model"].iloc[0],
            "settings": told_apart(str(configuration), settings),
            "seeds": len(group),
            "selected_round": group["selected_round"].mean(),
            metric: group[column].mean(),
        }
        for configuration, group in runs.groupby("configuration")
    ]
    ascending = [True, metric in ERRORS]
    return pd.DataFrame(rows).sort_values(["model", metric], ascending=ascending, kind="stable")


def choices_told(table: pd.DataFrame) -> str:
    """Write the table of `choosing` as Markdown, and say how many settings each model had."""
    budget = table.groupby("model").size()
    told = ", ".join(f"{model} {count}" for model, count in budget.items())
    return markdown(table, 4) + f"\nValidation only. Settings tried: {told}.\n"

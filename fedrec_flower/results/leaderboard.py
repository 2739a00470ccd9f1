"""Runs side by side: a row per experiment, its metrics over seeds, its costs, its origin."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedrec_flower.errors import FedrecError
from fedrec_flower.frames import is_seeded, once
from fedrec_flower.results.configuration import Settings, differing, is_federated, said
from fedrec_flower.results.load import IDENTITY, load_settings, load_summaries

ACTIVITY_GAP = "activity_gap"
"""What a column ends with that tells how much better active users are served."""

# Column of the table -> value of summary.json; means over seeds.
_COSTS = {
    "selected_round": "selected_round",
    "bytes_down_per_client_and_round": "bytes.down_per_client",
    "bytes_up_per_client_and_round": "bytes.up_per_client",
    "bytes_total": "bytes.total",
    "seconds_train": "seconds.train",
    "seconds_evaluate": "seconds.evaluate",
    "seconds_total": "seconds.total",
    "clients_per_second": "clients_per_second",
    "peak_memory_mb": "peak_memory_mb",
}

_ORIGIN = ("peak_memory_measure", "split_sha256", "commit")

ERRORS = ("rmse", "mae")
"""Metrics of which less is better."""

ATTACK = "attack/"
"""What the columns begin with that tell what an attack came to."""

FIELD = ["dataset", "task", "protocol"]
"""Rows that agree in these columns are rivals."""


def comparison(path: str | Path) -> pd.DataFrame:
    """Put completed runs side by side, those that differ in nothing but their seed as one row.

    Folds of ratings count as seeds do. Of runs that differ in neither, the one whose folder sorts
    last counts, so a repeated run is not counted twice.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per experiment, best first (by NDCG@10 of full ranking, or by RMSE) within its
        dataset, task and protocol. Columns, costs being means over seeds:

        - label (see `load_runs`), dataset, task, protocol (split and negatives), candidates
          (what is ranked), model, strategy, partition, federation, settings (everything in which
          it differs from other rows of its model), configuration
        - seeds (how many, or how many folds), seed (which), randomness, num_rounds, selected_round,
          num_clients, clients_per_round, num_test_users
        - for each metric its mean over seeds (`ndcg@10`), standard deviation over seeds
          (`ndcg@10_sd`, missing for one seed) and standard error over users (`ndcg@10_se`, of
          one run)
        - how evenly users are served, means over seeds of what summaries tell:
          `ndcg@10_worst_decile` (mean over the tenth of the clients that are served worst) and
          `ndcg@10_activity_gap` (of the most active quarter of the users, less that of the least
          active); of ratings `negative_mse_worst_decile` and `negative_mse_activity_gap`
        - for each number that an attack came to (`attack/auc`) its mean and standard deviation over
          seeds (`attack/auc_sd`), and what it says in words (`attack/exposed`)
        - epsilon (infinity: no guarantee) and its delta, bytes_down_per_client_and_round,
          bytes_up_per_client_and_round, megabytes_per_client (both ways, whole run, 10**6 bytes),
          bytes_total (all clients; 0 of a centralised run), seconds_train, seconds_evaluate,
          seconds_total (wall), clients_per_second, peak_memory_mb (measured as
          peak_memory_measure says)
        - split_sha256, commit, versions; several where they differ between seeds

    Raises:
        FedrecError: if there is no completed run.
    """
    once = completed_once(load_summaries(path))
    if once.empty:
        raise FedrecError(f"no run below {path} is completed: wait for one, or look at its error")
    settings = load_settings(path)
    rows = [_row(runs, settings) for _, runs in once.groupby("configuration")]
    return _best_first(pd.DataFrame(rows))


def completed_once(runs: pd.DataFrame) -> pd.DataFrame:
    """Completed runs, of repeated ones the last."""
    return once(runs[runs["status"] == "completed"])


def sorting_metric(metrics: Iterable[str]) -> str | None:
    """The metric that says which row is best: full ranking's NDCG@10, else RMSE, else none."""
    known = set(metrics)
    return next((name for name in ("ndcg@10", "rmse") if name in known), None)


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The metrics of a table of `comparison`; what attacks came to is none."""
    spread = [name for name in map(str, table) if name.endswith("_sd")]
    return [name.removesuffix("_sd") for name in spread if not name.startswith(ATTACK)]


def is_leaky(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows were measured with the leaky pool of negatives."""
    return table["protocol"].astype(str).str.contains("legacy")


def _row(runs: pd.DataFrame, settings: Mapping[str, Settings]) -> dict[str, Any]:
    first = runs.iloc[0]
    names = {name: first[name] for name in IDENTITY if name not in ("seed", "split_sha256")}
    metrics = _below("test.", runs)
    measured = [name for name in metrics if runs[f"test.{name}"].notna().any()]
    return {
        **{name: names.pop(name) for name in ("label", *FIELD)},
        "candidates": _candidates(measured),
        **names,
        "settings": told_apart(str(first["configuration"]), settings),
        "seeds": len(runs),
        "seed": _listed(runs["seed"]),
        "randomness": "seeded" if is_seeded(runs) else "private",
        **_rounds(runs),
        **{key: value for name in metrics for key, value in _metric(runs, name).items()},
        **_fairness(runs),
        **_attack(runs),
        **_costs(runs, sent=is_federated(settings[str(first["configuration"])])),
        **{name: _listed(runs[name]) for name in _ORIGIN if name in runs},
        "versions": _listed(_versions(runs)),
    }


def _rounds(runs: pd.DataFrame) -> dict[str, Any]:
    first = runs.iloc[0]
    counts = {name: first.get(name) for name in ("num_rounds", "num_clients", "num_test_users")}
    asked = first.get("clients_per_round")
    return counts | {"clients_per_round": counts["num_clients"] if pd.isna(asked) else asked}


def _metric(runs: pd.DataFrame, name: str) -> dict[str, float]:
    values, error = runs[f"test.{name}"], f"test_standard_error.{name}"
    told = {name: values.mean(), f"{name}_sd": values.std()}
    return told | ({f"{name}_se": runs[error].mean()} if error in runs else {})


def _fairness(runs: pd.DataFrame) -> dict[str, float]:
    """How evenly users are served; a summary names the measure first, a table the metric."""
    return {
        f"{metric}_{measure}": runs[f"fairness.{measure}_{metric}"].mean()
        for measure in ("worst_decile", ACTIVITY_GAP)
        for metric in _below(f"fairness.{measure}_", runs)
    }


def _attack(runs: pd.DataFrame) -> dict[str, Any]:
    """What an attack came to, where one was made: numbers over seeds, words as they are."""
    told: dict[str, Any] = {}
    for name in _below("attack.", runs):
        said = runs[f"attack.{name}"].dropna()
        values = pd.to_numeric(said, errors="coerce")
        if values.notna().any():
            told |= {f"{ATTACK}{name}": values.mean(), f"{ATTACK}{name}_sd": values.std()}
        elif len(said):
            told[f"{ATTACK}{name}"] = _listed(said)
    return told


def _costs(runs: pd.DataFrame, *, sent: bool) -> dict[str, float]:
    costs = {name: runs[key].mean() for name, key in _COSTS.items() if key in runs}
    if not sent:  # its one client stands for a server that holds all the data
        costs |= {name: 0.0 for name in costs if name.startswith("bytes")}
    epsilon = runs["epsilon"].astype(float).fillna(np.inf).max() if "epsilon" in runs else np.inf
    total = costs.get("bytes_total", np.nan)
    each = total / 1e6 / runs["num_clients"].iloc[0] if "num_clients" in runs else np.nan
    delta = runs["delta"].astype(float).max() if "delta" in runs else np.nan
    guarantee = {"epsilon": epsilon, "delta": delta}
    return {**guarantee, "megabytes_per_client": each, **costs}


def _candidates(metrics: Iterable[str]) -> str:
    """What the held-out item is ranked against, as the names of the metrics say."""
    ranked = [re.fullmatch(r"(?:hr|recall|ndcg|mrr|map)@\d+(?:_(\d+)neg)?", n) for n in metrics]
    pools = {found[1] for found in ranked if found}
    told = ["full ranking" if pool is None else f"{pool} negatives" for pool in pools]
    return ", ".join(sorted(told, reverse=True))


def told_apart(configuration: str, settings: Mapping[str, Settings]) -> str:
    """In which settings a configuration differs from others of its model, as overrides."""
    own = settings[configuration]
    model = own.get("model.name")
    namesakes = [each for each in settings.values() if each.get("model.name") == model]
    names = [name for name in differing(namesakes) if not name.endswith("_target_")]
    return " ".join(said(own, name) for name in names)


def _versions(runs: pd.DataFrame) -> list[str]:
    names = _below("versions.", runs)
    found = [[(name, run[f"versions.{name}"]) for name in names] for _, run in runs.iterrows()]
    return [" ".join(f"{name}={v}" for name, v in run if isinstance(v, str)) for run in found]


def _below(prefix: str, runs: pd.DataFrame) -> list[str]:
    return [name.removeprefix(prefix) for name in map(str, runs) if name.startswith(prefix)]


def _listed(values: Iterable[Any]) -> str:
    """Distinct values in one cell."""
    return ", ".join(str(value) for value in dict.fromkeys(values) if not pd.isna(value))


def _best_first(table: pd.DataFrame) -> pd.DataFrame:
    """Honest protocols first: a leaky figure is no rival of an honest one, however high."""
    metric = sorting_metric(metrics_of(table))
    merit = 0.0 if metric is None else table[metric] * (1 if metric == "rmse" else -1)
    keys = {"leaky": is_leaky(table), "merit": merit}
    order = ["leaky", *FIELD, "merit", "label"]
    return table.assign(**keys).sort_values(order).drop(columns=list(keys)).reset_index(drop=True)

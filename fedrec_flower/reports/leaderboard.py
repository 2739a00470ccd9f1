"""Comparison of experiments: metrics over seeds, costs, significance, rankings by validation.

`comparison` has one row per experiment. `leaderboard_table` adds a paired test of each row against
the best row. `validation_ranking` ranks the settings of a search without reading test metrics.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.core.random import generator
from fedrec_flower.evaluation.significance import holm, majority, mcnemar, paired_bootstrap
from fedrec_flower.reports.load import IDENTITY, load_per_user, load_settings, load_summaries
from fedrec_flower.reports.markdown import markdown
from fedrec_flower.reports.per_user import metric_per_user, per_user_column
from fedrec_flower.reports.run_frames import drop_repeated_runs, is_seeded
from fedrec_flower.reports.settings import Settings, as_override, differing, is_federated

ACTIVITY_GAP = "activity_gap"
"""Suffix of the columns with the metric gap between active and inactive users."""

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
"""Metrics for which lower is better."""

ATTACK = "attack/"
"""Prefix of the columns with results of an attack."""

FIELD = ["dataset", "task", "protocol"]
"""Rows with equal values in these columns are compared with each other."""


def comparison(path: str | Path) -> pd.DataFrame:
    """Compare completed runs; runs that differ only in their seed form one row.

    Folds of rating data count as seeds. Of runs with equal settings, seed and fold, only the run
    whose folder sorts last counts.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per experiment, best first (by NDCG@10 of full ranking, or by RMSE) within its
        dataset, task and protocol. Columns (costs are means over seeds):

        - label (see `load_runs`), dataset, task, protocol (split and negatives), candidates
          (ranked items), model, strategy, partition, federation, settings (differences
          from the other rows of its model), configuration
        - seeds (number of seeds or folds), seed (their values), randomness, num_rounds,
          selected_round, num_clients, clients_per_round, num_test_users
        - for each metric its mean over seeds (`ndcg@10`), standard deviation over seeds
          (`ndcg@10_sd`, missing for one seed) and standard error over users (`ndcg@10_se`, of
          one run)
        - fairness, means over seeds: `ndcg@10_worst_decile` (mean over the tenth of the clients
          with the lowest values) and `ndcg@10_activity_gap` (most active quarter of the users minus
          the least active); for ratings `negative_mse_worst_decile` and `negative_mse_activity_gap`
        - for each figure of an attack (`attack/auc`) its mean and standard deviation over seeds
          (`attack/auc_sd`), and its text values (`attack/exposed`)
        - epsilon (infinity: no guarantee) and its delta, bytes_down_per_client_and_round,
          bytes_up_per_client_and_round, megabytes_per_client (both ways, whole run, 10**6 bytes),
          bytes_total (all clients; 0 of a centralised run), seconds_train, seconds_evaluate,
          seconds_total (wall), clients_per_second, peak_memory_mb (see peak_memory_measure)
        - split_sha256, commit, versions; several if they differ between seeds

    Raises:
        FedrecError: if there is no completed run.
    """
    runs = completed_runs(load_summaries(path))
    if runs.empty:
        raise FedrecError(f"no run below {path} is completed: wait for one, or look at its error")
    settings = load_settings(path)
    rows = [_row(repeated, settings) for _, repeated in runs.groupby("configuration")]
    return _best_first(pd.DataFrame(rows))


def completed_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the completed runs; of repeated runs only the last."""
    return drop_repeated_runs(runs[runs["status"] == "completed"])


def sorting_metric(metrics: Iterable[str]) -> str | None:
    """Return the metric that orders the rows: NDCG@10 of full ranking, else RMSE, else None."""
    known = set(metrics)
    return next((name for name in ("ndcg@10", "rmse") if name in known), None)


def metrics_of(table: pd.DataFrame) -> list[str]:
    """Return the metrics of a table of `comparison`, without figures of attacks."""
    spread = [name for name in map(str, table) if name.endswith("_sd")]
    return [name.removesuffix("_sd") for name in spread if not name.startswith(ATTACK)]


def is_leaky(table: pd.DataFrame) -> "pd.Series[bool]":
    """Return a mask of the rows with the leaky pool of negatives."""
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
        "settings": distinguishing_settings(str(first["configuration"]), settings),
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
    texts = {name: values.mean(), f"{name}_sd": values.std()}
    return texts | ({f"{name}_se": runs[error].mean()} if error in runs else {})


def _fairness(runs: pd.DataFrame) -> dict[str, float]:
    """Return the fairness columns. In a summary the measure comes first, in a table the metric."""
    return {
        f"{metric}_{measure}": runs[f"fairness.{measure}_{metric}"].mean()
        for measure in ("worst_decile", ACTIVITY_GAP)
        for metric in _below(f"fairness.{measure}_", runs)
    }


def _attack(runs: pd.DataFrame) -> dict[str, Any]:
    """Return the results of an attack: numbers over seeds, texts unchanged."""
    texts: dict[str, Any] = {}
    for name in _below("attack.", runs):
        stated = runs[f"attack.{name}"].dropna()
        values = pd.to_numeric(stated, errors="coerce")
        if values.notna().any():
            texts |= {f"{ATTACK}{name}": values.mean(), f"{ATTACK}{name}_sd": values.std()}
        elif len(stated):
            texts[f"{ATTACK}{name}"] = _listed(stated)
    return texts


def _costs(runs: pd.DataFrame, *, sent: bool) -> dict[str, float]:
    costs = {name: runs[key].mean() for name, key in _COSTS.items() if key in runs}
    if not sent:  # its one client represents a server with all the data
        costs |= {name: 0.0 for name in costs if name.startswith("bytes")}
    epsilon = runs["epsilon"].astype(float).fillna(np.inf).max() if "epsilon" in runs else np.inf
    total = costs.get("bytes_total", np.nan)
    each = total / 1e6 / runs["num_clients"].iloc[0] if "num_clients" in runs else np.nan
    delta = runs["delta"].astype(float).max() if "delta" in runs else np.nan
    guarantee = {"epsilon": epsilon, "delta": delta}
    return {**guarantee, "megabytes_per_client": each, **costs}


def _candidates(metrics: Iterable[str]) -> str:
    """Return the candidates of the ranking, from the names of the metrics."""
    ranked = [re.fullmatch(r"(?:hr|recall|ndcg|mrr|map)@\d+(?:_(\d+)neg)?", n) for n in metrics]
    pools = {found[1] for found in ranked if found}
    texts = ["full ranking" if pool is None else f"{pool} negatives" for pool in pools]
    return ", ".join(sorted(texts, reverse=True))


def distinguishing_settings(configuration: str, settings: Mapping[str, Settings]) -> str:
    """Return the settings that differ from other configurations of the model, as overrides."""
    own = settings[configuration]
    model = own.get("model.name")
    namesakes = [each for each in settings.values() if each.get("model.name") == model]
    names = [name for name in differing(namesakes) if not name.endswith("_target_")]
    return " ".join(as_override(own, name) for name in names)


def _versions(runs: pd.DataFrame) -> list[str]:
    names = _below("versions.", runs)
    found = [[(name, run[f"versions.{name}"]) for name in names] for _, run in runs.iterrows()]
    return [" ".join(f"{name}={v}" for name, v in run if isinstance(v, str)) for run in found]


def _below(prefix: str, runs: pd.DataFrame) -> list[str]:
    return [name.removeprefix(prefix) for name in map(str, runs) if name.startswith(prefix)]


def _listed(values: Iterable[Any]) -> str:
    """Join distinct values for one cell."""
    return ", ".join(str(value) for value in dict.fromkeys(values) if not pd.isna(value))


def _best_first(table: pd.DataFrame) -> pd.DataFrame:
    """Sort honest protocols first, because a leaky value is not comparable with an honest one."""
    metric = sorting_metric(metrics_of(table))
    merit = 0.0 if metric is None else table[metric] * (1 if metric == "rmse" else -1)
    keys = {"leaky": is_leaky(table), "merit": merit}
    order = ["leaky", *FIELD, "merit", "label"]
    return table.assign(**keys).sort_values(order).drop(columns=list(keys)).reset_index(drop=True)


_TESTED = re.compile(r"(hr|ndcg)@10(_\d+neg)?")


def leaderboard_table(path: str | Path) -> pd.DataFrame:
    """Return the table of `comparison` with a test of each row against the best row.

    HR@10 uses McNemar's test, NDCG@10 a paired bootstrap. Users are the units of both tests; more
    seeds do not increase their number:

    - NDCG@10: the value of a user is the mean over the seeds in which the user was tested, and the
      bootstrap resamples users. The tested statistic is the mean over users and seeds, as in the
      table (except for weights, if a split holds out some users more often than others).
    - HR@10: McNemar's exact test needs one binary result per user, so it compares runs of the same
      seed. The p-values of the seeds are combined by `majority`. A majority over the seeds of each
      user would test another rate than the table shows.

    The best row has the highest mean of the metric. Holm's correction is over all rows that are
    compared with it: those of its dataset, task and protocol. The best row was selected on the same
    users, so the test slightly favours it.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        The table with `ndcg@10_p` (corrected) and `ndcg@10_p_raw`, likewise `hr@10` and both
        against sampled negatives; missing for the best row, for a row without competitors,
        for runs without per-user ranks, and for HR@10 of models without a common seed.

    Raises:
        FedrecError: if there is no completed run, or compared rows have unequal splits.
    """
    table, per_user = comparison(path), load_per_user(path)
    _require_equal_splits(completed_runs(load_summaries(path)))
    for metric in [name for name in metrics_of(table) if _TESTED.fullmatch(name)]:
        users = _of_users(per_user, metric)
        fields = [field for _, field in table[table[metric].notna()].groupby(FIELD)]
        found = [p for field in fields for p in _p_values(field, users, metric)]
        columns = pd.DataFrame(found, columns=["row", "p", "p_raw"]).set_index("row")
        place = list(table).index(f"{metric}_sd") + 1 + (f"{metric}_se" in table)
        for name in ("p_raw", "p"):
            table.insert(place, f"{metric}_{name}", columns[name].reindex(table.index))
    return table


def _p_values(
    field: pd.DataFrame, users: pd.DataFrame, metric: str
) -> Iterator[tuple[int, float, float]]:
    """Yield row, corrected p-value and p-value of every row but the best."""
    rivals = field[field["configuration"].isin(users.columns.unique("configuration"))]
    if rivals.empty:
        return
    ours = {row: users[name].dropna(how="all") for row, name in rivals["configuration"].items()}
    if not _same_users(list(ours.values())):
        raise FedrecError(
            f"{' and '.join(rivals['label'])} were not tested on the same users: compare them "
            "in separate folders"
        )
    best = rivals[metric].idxmax()
    others = [row for row in rivals.index if row != best]
    test = _hits_p if metric.startswith("hr") else _gains_p
    raw = [test(ours[best], ours[row]) for row in others]
    yield from zip(others, holm(raw), raw, strict=True)


def _same_users(ours: list[pd.DataFrame]) -> bool:
    """Return whether all rows were tested on the same users; these may differ between seeds."""
    tested = pd.concat(ours, axis="columns").notna()
    of_seeds = [tested[[seed]] for seed in dict.fromkeys(tested)]
    in_seeds = all((of.any(axis="columns") == of.all(axis="columns")).all() for of in of_seeds)
    return in_seeds and all(users.index.equals(ours[0].index) for users in ours)


def _hits_p(best: pd.DataFrame, other: pd.DataFrame) -> float:
    seeds = [seed for seed in best if seed in other]
    return majority(
        [
            mcnemar(*(users[seed].dropna().to_numpy(bool) for users in (best, other)))
            for seed in seeds
        ]
    )


def _gains_p(best: pd.DataFrame, other: pd.DataFrame) -> float:
    one, another = (users.mean(axis="columns").to_numpy() for users in (best, other))
    # The resamples of a pair do not depend on the other rows of the table.
    return paired_bootstrap(one, another, generator(0, "paired-bootstrap"))


def _of_users(per_user: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return a metric with one row per user and one column per configuration and seed."""
    keys = ["configuration", "seed"]
    if per_user_column(metric) not in per_user:
        return pd.DataFrame(columns=pd.MultiIndex.from_tuples([], names=keys))
    table = metric_per_user(per_user, metric).pivot_table("total", "user_id", keys)
    # The bootstrap draws users by position: numeric ids are in numeric order.
    return table.loc[sorted(table.index, key=_in_order)]


def _in_order(user_id: str) -> tuple[int, str]:
    is_number = user_id.isascii() and user_id.isdigit()
    return (int(user_id) if is_number else sys.maxsize, user_id)


def _require_equal_splits(runs: pd.DataFrame) -> None:
    ranked = runs["task"] == "ranking"  # rating runs are not tested, and have folds
    known = runs[ranked & runs["split_sha256"].notna()]
    for _, rivals in known.groupby(FIELD):
        for seed, same_seed in rivals.groupby("seed"):
            distinct = same_seed.drop_duplicates("split_sha256")
            if len(distinct) > 1:
                texts = [f"{row['label']} ({row['run']})" for _, row in distinct.iterrows()]
                raise FedrecError(
                    f"{texts[0]} and {texts[1]} were tested on unequal splits with seed {seed}: "
                    "compare them in separate folders"
                )
        _require_equal_seeds(rivals)


def _require_equal_seeds(rivals: pd.DataFrame) -> None:
    """Check that all rows have the same seeds if the split depends on the seed."""
    seeds = {str(label): set(of_row["seed"]) for label, of_row in rivals.groupby("label")}
    all_seeds = set(rivals["seed"])
    lacking = [label for label in seeds if seeds[label] != all_seeds]
    if lacking and len(set(rivals["split_sha256"])) > 1:
        missing = min(all_seeds - seeds[lacking[0]])
        raise FedrecError(
            f"{lacking[0]} has no run with seed {missing}, but the split depends on the seed: "
            "run all with the same seeds"
        )


def validation_ranking(path: str | Path, metric: str) -> pd.DataFrame:
    """Rank the settings of each model by a validation metric; test metrics are not read.

    Args:
        path: a folder with run folders at any depth.
        metric: metric of the ranking, such as `ndcg@10`.

    Returns:
        One row per configuration, each model's best first: model, settings (differences from
        the model's other configurations), seeds (number of seeds or folds), selected_round, and
        the metric, both means over seeds.

    Raises:
        FedrecError: if no completed run has the metric.
    """
    runs, column = completed_runs(load_summaries(path)), f"validation.{metric}"
    if column not in runs or runs.empty:
        raise FedrecError(f"no completed run below {path} has validation {metric}")
    settings = load_settings(path)
    rows = [
        {
            "model": group["model"].iloc[0],
            "settings": distinguishing_settings(str(configuration), settings),
            "seeds": len(group),
            "selected_round": group["selected_round"].mean(),
            metric: group[column].mean(),
        }
        for configuration, group in runs.groupby("configuration")
    ]
    ascending = [True, metric in ERRORS]
    return pd.DataFrame(rows).sort_values(["model", metric], ascending=ascending, kind="stable")


def validation_ranking_markdown(table: pd.DataFrame) -> str:
    """Write the table of `validation_ranking` as Markdown, with the number of settings."""
    budget = table.groupby("model").size()
    texts = ", ".join(f"{model} {count}" for model, count in budget.items())
    return markdown(table, 4) + f"\nValidation only. Settings tried: {texts}.\n"

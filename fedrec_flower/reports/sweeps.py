"""Tables of sweeps: time to accuracy, asynchronous runs, heterogeneity and attacks."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.leaderboard import ERRORS, FIELD, completed_runs
from fedrec_flower.reports.load import load_runs, load_settings, load_summaries
from fedrec_flower.reports.markdown import markdown
from fedrec_flower.reports.run_frames import drop_repeated_runs
from fedrec_flower.reports.settings import (
    Settings,
    as_override,
    choice_label,
    differing,
    is_federated,
)

SHARE = 0.95
"""The goal, as a share of the centralised run's best validation metric."""

_RIVALS = [*FIELD, "model"]


def time_to_accuracy_table(path: str | Path, metric: str) -> pd.DataFrame:
    """Compute when each federation first reached the goal set by its model's centralised run.

    Args:
        path: a folder with run folders at any depth; federations of models that also
            have a centralised run (federation=centralized) count.
        metric: a validation metric for which higher is better.

    Returns:
        One row per experiment, sorted by clients per round, most first: label, dataset, model,
        clients_per_round, local_epochs, learning_rate, seeds (their number), share (`SHARE`), goal
        (that share of the centralised run's best value, mean over its seeds), best (value, mean
        over seeds), reached (number of seeds at the goal), rounds (the first evaluated round at the
        goal) and megabytes (sent and received per client until then, mean over all clients, 10**6
        bytes), both means over seeds and missing unless every seed reached the goal; rounds_run
        and megabytes_run of the whole run.

        There is no row for a model without a centralised run or for an error metric.

    Raises:
        FedrecError: if there is no run that can be read.
    """
    runs = completed_runs(load_summaries(path)).set_index("run")
    settings = load_settings(path)
    runs = runs.assign(federated=[is_federated(settings[key]) for key in runs["configuration"]])
    runs = runs.join(_progress(load_runs(path), metric), how="inner")
    rows = [row for _, rivals in runs.groupby(_RIVALS) for row in _rows(rivals, settings)]
    if not rows or metric in ERRORS:
        return pd.DataFrame()
    order = ["model", "clients_per_round", "local_epochs", "learning_rate", "label"]
    downward = [True, False, True, True, True]
    return pd.DataFrame(rows).sort_values(order, ascending=downward).reset_index(drop=True)


def time_to_accuracy_markdown(table: pd.DataFrame, metric: str) -> str:
    """Write the table of `time_to_accuracy_table` as Markdown, with the goal below it."""
    repeated = table.duplicated(["model", "clients_per_round", "local_epochs", "learning_rate"])
    shown = pd.DataFrame(
        {
            "run": table["label" if repeated.any() else "model"],
            "clients a round": table["clients_per_round"],
            "local epochs": table["local_epochs"],
            "learning rate": table["learning_rate"],
            "seeds": table["seeds"],
            f"best validation {metric}": table["best"].map("{:.4f}".format),
            "rounds to the goal": list(goal_cells(table, "rounds", "{:,.0f}")),
            "MB a client to the goal": list(goal_cells(table, "megabytes", "{:,.1f}")),
        }
    )
    goals = table.drop_duplicates("model").itertuples()
    texts = "; ".join(f"{row.model} {row.goal:.4f}" for row in goals)
    return (
        markdown(shown, 6)
        + f"\nGoal, {SHARE:.0%} of the best validation {metric} of the centralised run: {texts}. "
        "Reached at the first evaluated round with that value; MB are sent and received until "
        "then, mean over all clients. In brackets: the length of runs that did not reach the "
        "goal.\n"
    )


def _progress(rounds: pd.DataFrame, metric: str) -> "pd.Series[Any]":
    """Return the validation curve of each run as a Series by round."""
    shown = rounds[(rounds["phase"] == "validation") & (rounds["metric"] == metric)]
    curves = {run: own.set_index("round")["value"] for run, own in shown.groupby("run")}
    return pd.Series(curves, name="curve", dtype=object)


def _rows(rivals: pd.DataFrame, settings: Mapping[str, Settings]) -> Iterator[dict[str, Any]]:
    """Yield the rows of one model on the same data, if federated and centralised runs exist."""
    ours = rivals["federated"]
    best = rivals["curve"].map(lambda curve: curve.max())
    goal = SHARE * best[~ours].mean()
    if pd.isna(goal):
        return
    for key, repeated in rivals[ours].groupby("configuration"):
        facts = pd.DataFrame([_facts(run, goal) for _, run in repeated.iterrows()])
        yield {
            **_identity(repeated, settings[str(key)]),
            "seeds": len(facts),
            "share": SHARE,
            "goal": goal,
            "best": best[repeated.index].mean(),
            "reached": int(facts["rounds"].notna().sum()),
            **{str(name): value for name, value in facts.mean(skipna=False).items()},
        }


def _identity(runs: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    """Return the identifying values of an experiment."""
    first = runs.iloc[0]
    sampled = first["clients_per_round"]
    return {
        "label": first["label"],
        "dataset": first["dataset"],
        "model": first["model"],
        "clients_per_round": int(first["num_clients"] if pd.isna(sampled) else sampled),
        "local_epochs": settings.get("training.local_epochs"),
        "learning_rate": settings.get("training.learning_rate"),
    }


def _facts(run: "pd.Series[Any]", goal: float) -> dict[str, float]:
    """Return when a run reached the goal, and its length."""
    rounds, megabytes = _rounds_run(run), run["bytes.total"] / run["num_clients"] / 1e6
    there = first_reaching(run["curve"], goal)
    # Assumes equal costs per round: a summary has means over rounds.
    return {
        "rounds": there,
        "megabytes": megabytes * there / rounds,
        "rounds_run": rounds,
        "megabytes_run": megabytes,
    }


def first_reaching(curve: "pd.Series[float]", goal: float) -> float:
    """Return the first round or time with a value of at least the goal; NaN if there is none.

    Args:
        curve: values by round or by time, ascending.
        goal: the minimum value.
    """
    there = curve.index[curve >= goal]
    return float(there[0]) if len(there) else float(np.nan)


def _rounds_run(run: "pd.Series[Any]") -> float:
    stopped = run.get("stopped_at")
    return float(run["num_rounds"] if pd.isna(stopped) else stopped)


def goal_cells(table: pd.DataFrame, column: str, form: str) -> Iterator[str]:
    """Format the cost to the goal, or the number of seeds that reached it and the run length.

    Args:
        table: one row per experiment with reached and seeds (counts), the column, and the column
            with the suffix `_run` for whole runs.
        column: name of the cost.
        form: format of a value.
    """
    for _, row in table.iterrows():
        if row["reached"] == row["seeds"]:
            yield form.format(row[column])
        else:
            partly = f"{row['reached']} of {row['seeds']} seeds" if row["reached"] else "never"
            yield f"{partly} ({form.format(row[f'{column}_run'])})"


_CLOCK = "simulated_seconds"  # name of the metric that strategies report


def async_curves(path: str | Path, metric: str) -> pd.DataFrame:
    """Return the validation curve of each run over simulated time.

    Args:
        path: a folder with run folders at any depth; completed runs with a simulated clock count.
        metric: a validation metric.

    Returns:
        The rows of `load_runs` for that metric with the column seconds (simulated, since the start;
        0 of the untrained model); empty if no run has a clock.

    Raises:
        FedrecError: if there is no run that can be read.
    """
    runs = load_runs(path)
    runs = drop_repeated_runs(runs[runs["status"] == "completed"])
    clock = runs[runs["metric"] == _CLOCK].set_index(["run", "round"])["value"].rename("seconds")
    evaluated = runs[(runs["phase"] == "validation") & (runs["metric"] == metric)]
    shown = evaluated[evaluated["run"].isin(clock.index.unique("run"))]
    shown = shown.join(clock, on=["run", "round"])
    return shown.assign(seconds=shown["seconds"].where(shown["round"] > 0, 0.0))


def async_table(path: str | Path, metric: str) -> pd.DataFrame:
    """Compute the simulated time until runs first reach 95 % of the synchronous runs' best value.

    Args:
        path: as in `async_curves`.
        metric: a validation metric for which higher is better.

    Returns:
        One row per experiment, synchronous ones first: label, dataset, model, waits_for_all
        (whether the buffer holds all active clients), seeds (their number), share (`SHARE`), goal
        (that share of the best value, mean over seeds, of the synchronous runs, or of all runs if
        there is none), best (validation value, mean over seeds), test (value at the round that
        validation selected, mean over seeds), reached (number of seeds at the goal), seconds
        (simulated, until the first evaluated round at the goal; mean over seeds, missing unless
        every seed reached it) and seconds_run (of the whole run).

        There is no row for runs without a clock or for an error metric.

    Raises:
        FedrecError: if there is no run that can be read.
    """
    curves = {
        str(run): own.set_index("seconds")["value"]
        for run, own in async_curves(path, metric).groupby("run")
    }
    if not curves or metric in ERRORS:
        return pd.DataFrame()
    runs, settings = completed_runs(load_summaries(path)).set_index("run"), load_settings(path)
    runs = runs.loc[list(curves)]
    waiting = [_waits_for_all(run, settings) for _, run in runs.iterrows()]
    runs = runs.assign(curve=pd.Series(curves, dtype=object), waits_for_all=waiting)
    rows = [
        row for _, rivals in runs.groupby([*FIELD, "model"]) for row in _async_rows(rivals, metric)
    ]
    order = ["model", "waits_for_all", "label"]
    table = pd.DataFrame(rows).sort_values(order, ascending=[True, False, True], kind="stable")
    return table.reset_index(drop=True)


def async_markdown(table: pd.DataFrame, metric: str) -> str:
    """Write the table of `async_table` as Markdown, with the goal below it."""
    shown = pd.DataFrame(
        {
            "run": table["label"],
            "waits for": table["waits_for_all"].map({True: "all", False: "some"}),
            "seeds": table["seeds"],
            f"best validation {metric}": table["best"].map("{:.4f}".format),
            f"test {metric}": table["test"].map("{:.4f}".format),
            "simulated seconds to the goal": list(goal_cells(table, "seconds", "{:,.1f}")),
        }
    )
    goals = table.drop_duplicates("model")
    texts = "; ".join(f"{row.model} {row.goal:.4f}" for row in goals.itertuples())
    whose = "the runs that wait for all" if goals["waits_for_all"].all() else "any run"
    return markdown(shown) + (
        f"\nGoal, {SHARE:.0%} of the best validation {metric} of {whose}: {texts}. Reached at the "
        "first evaluated round with that value. Test at the round that validation selected; means "
        "over seeds. In brackets: the duration of runs that did not reach the goal.\n"
    )


def _waits_for_all(run: "pd.Series[Any]", settings: Mapping[str, Settings]) -> bool:
    """Return whether the server waits for all active clients."""
    size = settings[run["configuration"]].get("strategy.buffer_size")
    asked = run["clients_per_round"]
    return isinstance(size, int) and size >= (run["num_clients"] if pd.isna(asked) else asked)


def _async_rows(rivals: pd.DataFrame, metric: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one model on the same data."""
    best = rivals["curve"].map(max)
    patient = rivals["waits_for_all"] if rivals["waits_for_all"].any() else ~rivals["waits_for_all"]
    goal = SHARE * best[patient].groupby(rivals["configuration"]).mean().max()
    for _, repeated in rivals.groupby("configuration"):
        first = repeated.iloc[0]
        seconds = repeated["curve"].map(lambda curve: first_reaching(curve, goal))
        yield {
            **{name: first[name] for name in ("label", "dataset", "model", "waits_for_all")},
            "seeds": len(repeated),
            "share": SHARE,
            "goal": goal,
            "best": best[repeated.index].mean(),
            "test": repeated[f"test.{metric}"].mean(),
            "reached": int(seconds.notna().sum()),
            "seconds": seconds.mean(skipna=False),
            "seconds_run": repeated["curve"].map(lambda curve: curve.index[-1]).mean(),
        }


# From similar silos to one client per user; other partitions come last.
_BY_SKEW = ("silo_random", "silo_quantity", "silo_attribute", "silo_dirichlet", "user")
# Measures of skew; a negative sign means that smaller values are more skewed.
_MEASURES = {"partition.exponent": 1.0, "partition.alpha": -1.0}
_SHOWN_GROUPS = ("partition.", "strategy.")


def heterogeneity_table(path: str | Path, metric: str) -> pd.DataFrame:
    """Compare the test metric of each strategy on each partition.

    Args:
        path: a folder with run folders at any depth; completed federations count.
        metric: a test metric, taken at the round that validation selected.

    Returns:
        One row per partition and strategy, even partitions first: dataset, partition and strategy
        (with their distinguishing settings), num_clients, mean, sd (standard deviation over
        seeds; missing for one seed), se (standard error over users, of one run) and seeds.

    Raises:
        FedrecError: if no completed run of a federation reports the metric.
    """
    runs, settings = completed_runs(load_summaries(path)), load_settings(path)
    column = f"test.{metric}"
    known = runs[runs[column].notna()] if column in runs else runs.head(0)
    own = {key: settings[key] for key in known["configuration"] if is_federated(settings[key])}
    if not own:
        raise FedrecError(f"no completed run of a federation below {path} reports {metric}")
    every = list(own.values())
    rows = [
        _partition_names(own[str(key)], every) | _test_values(repeated, metric)
        for key, repeated in known.groupby("configuration")
        if key in own
    ]
    order = ["place", "measure", "partition", "strategy"]
    table = pd.DataFrame(rows).sort_values(order, kind="stable", na_position="first")
    return table.drop(columns=order[:2]).reset_index(drop=True)


def heterogeneity_markdown(table: pd.DataFrame, metric: str) -> str:
    """Write `heterogeneity_table` as Markdown: one row per partition, one column per strategy."""
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


def _partition_names(settings: Settings, every: list[Settings]) -> dict[str, Any]:
    """Return the names of an experiment, and the position of its partition."""
    name = str(settings.get("partition.name"))
    rest = [key for key in differing(every) if not key.startswith(_SHOWN_GROUPS)]
    others = [as_override(settings, key) for key in rest if not key.endswith("_target_")]
    measures = [sign * settings[key] for key, sign in _MEASURES.items() if key in settings]
    return {
        "dataset": settings.get("dataset.name"),
        "partition": choice_label(settings, "partition", every),
        "strategy": ", ".join([choice_label(settings, "strategy", every), *others]),
        "place": _BY_SKEW.index(name) if name in _BY_SKEW else len(_BY_SKEW),
        "measure": measures[0] if measures else float("nan"),
    }


def _test_values(runs: pd.DataFrame, metric: str) -> dict[str, Any]:
    values, error = runs[f"test.{metric}"], f"test_standard_error.{metric}"
    return {
        "num_clients": int(runs["num_clients"].iloc[0]),
        "mean": values.mean(),
        "sd": values.std(),
        "se": runs[error].mean() if error in runs else float("nan"),
        "seeds": len(values),
    }


# By increasing knowledge of the attacker; other attacks come last.
_BY_MEANS = ("watch", "random", "bandwagon", "popular", "explicit_boosting", "fedrecattack")
_EXPOSURE = "attack.exposure@"
_ATTACK_GROUPS = ("attack.", "strategy.")


def attack_table(path: str | Path) -> pd.DataFrame:
    """Compare the result of each attack against each strategy.

    Args:
        path: a folder with run folders at any depth; completed runs with target items count.

    Returns:
        One row per attack and strategy: dataset, attack and strategy (with their distinguishing
        settings), malicious (share of the clients), exposure and ndcg (of honest users, at
        the round that validation selected; means over seeds), k (length of the lists) and seeds
        (their number). Attacks are in the order of their knowledge. Empty if no run has targets.

    Raises:
        FedrecError: if there is no run that can be read, or if lists have several lengths.
    """
    runs, settings = completed_runs(load_summaries(path)), load_settings(path)
    measured = [str(name) for name in runs if str(name).startswith(_EXPOSURE)]
    if not measured:
        return pd.DataFrame()
    if len(measured) > 1:
        texts = ", ".join(name.removeprefix("attack.") for name in measured)
        raise FedrecError(f"runs below {path} measured {texts}: compare lists of one length alone")
    known = runs[runs[measured[0]].notna()]
    every = [settings[key] for key in set(known["configuration"])]
    rows = [
        _attack_names(settings[str(key)], every) | _attack_values(repeated, measured[0])
        for key, repeated in known.groupby("configuration")
    ]
    order = ["place", "malicious", "attack", "strategy"]
    table = pd.DataFrame(rows).sort_values(order, kind="stable")
    return table.drop(columns="place").reset_index(drop=True)


def attack_markdown(table: pd.DataFrame) -> str:
    """Write the table of `attack_table` as Markdown: rows are attacks, columns strategies."""
    k, seeds = table["k"].iloc[0], ", ".join(map(str, sorted(set(table["seeds"]))))
    cells = table["exposure"].map("{:.1%}".format) + table["ndcg"].map(" ({:.4f})".format)
    wide = table.assign(cell=cells, malicious=table["malicious"].map("{:.0%}".format)).pivot_table(
        index=["attack", "malicious"], columns="strategy", values="cell", aggfunc="first",
        sort=False,
    )  # fmt: skip
    return markdown(wide.reset_index()) + (
        f"\nShare of honest users with a promoted, unseen item among their {k} best items, "
        f"mean over the promoted items; in brackets NDCG@{k} of honest users on test. At the round "
        f"that validation selected; seeds: {seeds}. Exposures are lower bounds: a stronger attack "
        "may achieve more.\n"
    )


def _attack_names(settings: Settings, every: list[Settings]) -> dict[str, Any]:
    name = str(settings.get("attack.name"))
    # The share of malicious clients has its own column.
    without_share = [{k: v for k, v in each.items() if k != "attack.malicious"} for each in every]
    rest = [key for key in differing(every) if not key.startswith(_ATTACK_GROUPS)]
    others = [as_override(settings, key) for key in rest if not key.endswith("_target_")]
    return {
        "dataset": settings.get("dataset.name"),
        "attack": choice_label(settings, "attack", without_share),
        "malicious": float(settings.get("attack.malicious", 0)),
        "strategy": ", ".join([choice_label(settings, "strategy", every), *others]),
        "place": _BY_MEANS.index(name) if name in _BY_MEANS else len(_BY_MEANS),
    }


def _attack_values(runs: pd.DataFrame, exposure: str) -> dict[str, Any]:
    k = int(exposure.removeprefix(_EXPOSURE))
    return {
        "exposure": float(runs[exposure].mean()),
        "ndcg": float(runs[f"attack.ndcg@{k}_honest"].mean()),
        "k": k,
        "seeds": len(runs),
    }

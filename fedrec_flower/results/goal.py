"""How many rounds and bytes a federation takes to come near what its model reaches without one."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedrec_flower.results.configuration import Settings, is_federated
from fedrec_flower.results.leaderboard import ERRORS, FIELD, completed_once
from fedrec_flower.results.load import load_runs, load_settings, load_summaries
from fedrec_flower.results.tables import markdown

SHARE = 0.95
"""The share of the centralised run's best validation metric that is near enough."""

_RIVALS = [*FIELD, "model"]


def way_to_goal(path: str | Path, metric: str) -> pd.DataFrame:
    """When each federation first came near its model's centralised run, on validation.

    Args:
        path: a folder with run folders at any depth; of each model with its centralised run
            (federation=centralized), those of federations count.
        metric: the validation metric that is to be reached, more of it being better.

    Returns:
        One row per experiment, those with the most clients a round first: label, dataset, model,
        clients_per_round, local_epochs, learning_rate, seeds (how many), share (`SHARE`), goal
        (that share of the centralised run's best value, mean over its seeds), best (value, mean
        over seeds), reached (how many seeds did), rounds (the first evaluated one at the goal)
        and megabytes (that a client had sent and received by then, mean over all clients, 10**6
        bytes), both means over seeds and missing unless every seed got there; rounds_run and
        megabytes_run of the whole run.

        No row for a model without a centralised run, nor for a metric that is an error.

    Raises:
        FedrecError: if there is no run that can be read.
    """
    runs = completed_once(load_summaries(path)).set_index("run")
    settings = load_settings(path)
    runs = runs.assign(federated=[is_federated(settings[key]) for key in runs["configuration"]])
    runs = runs.join(_progress(load_runs(path), metric), how="inner")
    rows = [row for _, rivals in runs.groupby(_RIVALS) for row in _rows(rivals, settings)]
    if not rows or metric in ERRORS:
        return pd.DataFrame()
    order = ["model", "clients_per_round", "local_epochs", "learning_rate", "label"]
    downward = [True, False, True, True, True]
    return pd.DataFrame(rows).sort_values(order, ascending=downward).reset_index(drop=True)


def way_told(table: pd.DataFrame, metric: str) -> str:
    """Write the table of `way_to_goal` as Markdown, and say below it what the goal is."""
    alike = table.duplicated(["model", "clients_per_round", "local_epochs", "learning_rate"])
    shown = pd.DataFrame(
        {
            "run": table["label" if alike.any() else "model"],
            "clients a round": table["clients_per_round"],
            "local epochs": table["local_epochs"],
            "learning rate": table["learning_rate"],
            "seeds": table["seeds"],
            f"best validation {metric}": table["best"].map("{:.4f}".format),
            "rounds to the goal": list(way_or_how_far(table, "rounds", "{:,.0f}")),
            "MB a client to the goal": list(way_or_how_far(table, "megabytes", "{:,.1f}")),
        }
    )
    goals = table.drop_duplicates("model").itertuples()
    told = "; ".join(f"{row.model} {row.goal:.4f}" for row in goals)
    return (
        markdown(shown, 6)
        + f"\nGoal, {SHARE:.0%} of the best validation {metric} of the centralised run: {told}. "
        "Reached at the first evaluated round that is there; MB are sent and received by then, "
        "mean over all clients. In brackets: how far a run went that never got there.\n"
    )


def _progress(rounds: pd.DataFrame, metric: str) -> "pd.Series[Any]":
    """The validation curve of each run, a Series by round."""
    shown = rounds[(rounds["phase"] == "validation") & (rounds["metric"] == metric)]
    curves = {run: own.set_index("round")["value"] for run, own in shown.groupby("run")}
    return pd.Series(curves, name="curve", dtype=object)


def _rows(rivals: pd.DataFrame, settings: Mapping[str, Settings]) -> Iterator[dict[str, Any]]:
    """Rows of one model on the same data, if it was run both ways."""
    ours = rivals["federated"]
    best = rivals["curve"].map(lambda curve: curve.max())
    goal = SHARE * best[~ours].mean()
    if pd.isna(goal):
        return
    for key, repeated in rivals[ours].groupby("configuration"):
        facts = pd.DataFrame([_facts(run, goal) for _, run in repeated.iterrows()])
        yield {
            **_asked(repeated, settings[str(key)]),
            "seeds": len(facts),
            "share": SHARE,
            "goal": goal,
            "best": best[repeated.index].mean(),
            "reached": int(facts["rounds"].notna().sum()),
            **{str(name): value for name, value in facts.mean(skipna=False).items()},
        }


def _asked(runs: pd.DataFrame, settings: Settings) -> dict[str, Any]:
    """What sets an experiment apart."""
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
    """When a run reached the goal, and how far it went."""
    rounds, megabytes = _rounds_run(run), run["bytes.total"] / run["num_clients"] / 1e6
    there = first_at(run["curve"], goal)
    # As if each round cost the same: a run's summary tells means over its rounds.
    return {
        "rounds": there,
        "megabytes": megabytes * there / rounds,
        "rounds_run": rounds,
        "megabytes_run": megabytes,
    }


def first_at(curve: "pd.Series[float]", goal: float) -> float:
    """The first round, or time, whose value is at the goal or above it; NaN if there is none.

    Args:
        curve: values by round or by time, ascending.
        goal: the least value that will do.
    """
    there = curve.index[curve >= goal]
    return float(there[0]) if len(there) else float(np.nan)


def _rounds_run(run: "pd.Series[Any]") -> float:
    stopped = run.get("stopped_at")
    return float(run["num_rounds"] if pd.isna(stopped) else stopped)


def way_or_how_far(table: pd.DataFrame, column: str, form: str) -> Iterator[str]:
    """Write what it took to the goal, or by how many seeds it was reached and how far runs went.

    Args:
        table: a row per experiment: reached and seeds (counts), the column, and the same with
            `_run` behind its name, of whole runs.
        column: what it took.
        form: how to write a value.
    """
    for _, row in table.iterrows():
        if row["reached"] == row["seeds"]:
            yield form.format(row[column])
        else:
            partly = f"{row['reached']} of {row['seeds']} seeds" if row["reached"] else "never"
            yield f"{partly} ({form.format(row[f'{column}_run'])})"

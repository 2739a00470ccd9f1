"""Writes the artifacts of a completed run: tables, recommendations, model, figures, summary.

All nodes of a simulation are on the researcher's machine, so the per-user results that nodes wrote
to their disk are collected here. The strategy never receives them. In a deployment they stay on
the nodes, so the run has no table of users or clients.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.core.files import copy_or_link
from fedrec_flower.data.interactions import Part, genre_flags
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.evaluation.metrics.base import Ranks
from fedrec_flower.evaluation.metrics.beyond_accuracy import beyond_accuracy
from fedrec_flower.evaluation.metrics.fairness import activity_gap, worst_decile
from fedrec_flower.evaluation.metrics.ranking import NDCG
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.summary import RunSummary
from fedrec_flower.federation.results import Evaluated, Outcome
from fedrec_flower.reports.activity import by_activity
from fedrec_flower.reports.load import load_per_user, load_runs
from fedrec_flower.threats.base import LOWER_BOUND, Attack
from fedrec_flower.threats.poisoning import Poisoning

_LOG = logging.getLogger(__name__)

Notes = Mapping[str, NDArray[Any]]

_PRIVATE_NOTICE = """These files are personal parameters: on devices they never leave their client.
Do not publish them. Each array has one row per user (or per client), in the order of clients.csv.
written.npy marks the clients that have trained: the rows of all other clients are zeros.
"""


def write_artifacts(
    record: RunSummary, data: Prepared, outcome: Outcome, attack: Attack, *, deployed: bool
) -> dict[str, Any]:
    """Write every table and figure of a completed run, and its summary.

    Args:
        record: the run's summary so far.
        data: the prepared data.
        outcome: the result of the strategy.
        attack: measures its own success.
        deployed: True if the disks of the nodes cannot be read here.

    Returns:
        The complete summary.

    Raises:
        FedrecError: if the files of the nodes cannot be read here, or the disk is full.
    """
    folder = record.folder
    folder.write_model(outcome.selected.parameters, data.item_ids, outcome.privacy)
    record.update(_summary(record, data, outcome))
    clients = None if deployed else _publish_users(record, data, outcome, attack)
    record.update({"status": "completed"})
    folder.write_summary(record.summary)
    try:
        if outcome.selected.num_clients:  # deployed clients under local privacy report no metrics
            _draw(folder, clients, record.summary)
    except Exception as error:  # noqa: BLE001  # a figure must not fail a completed run
        _LOG.warning("the run is complete, except for its figures: %s", error)
    return record.summary


def _publish_users(
    record: RunSummary, data: Prepared, outcome: Outcome, attack: Attack
) -> pd.DataFrame:
    """Write the tables of users and clients, and update the summary; returns the client table."""
    folder = record.folder
    notes = _read_notes(folder.path / "clients")
    folder.write_table("per_user", _per_user(data, notes))
    folder.write_table("recommendations", _recommendations(data, notes))
    clients = data.clients.assign(rounds_participated=outcome.rounds_participated)
    folder.write_table("clients", clients)
    _keep_selected(folder.path / "clients", outcome.selected.slot)
    test = record.summary["test"] | _beyond(data, notes)
    record.update({"test": test, "fairness": _fairness(data, notes)})
    if isinstance(attack, Poisoning):
        achieved = attack.poisoning_metrics(data, _recommended(notes))
        record.update({"attack": achieved | LOWER_BOUND})
    return clients


def _read_notes(store: Path) -> Notes:
    files = sorted((store / "notes").glob("*.npy"))
    if not files:
        raise FedrecError(
            f"the nodes wrote no results to {store}: on a cluster, set output_dir= to a folder on "
            "a disk that all machines share"
        )
    return {file.stem: np.load(file) for file in files}


def _per_user(data: Prepared, notes: Notes) -> pd.DataFrame:
    """One row per user and held-out item (ranking), or per user (rating); ids are original."""
    test = data.part(Part.TEST)
    user_ids = data.user_ids[data.user_codes]
    num_train = np.diff(data.part(Part.TRAIN).offsets)
    per_test = {name: value for name, value in notes.items() if "_test_" in name}
    ranks = {name.removeprefix("per_test_"): value for name, value in per_test.items()}
    ranks = dict(sorted(ranks.items(), key=lambda pair: pair[0] != "rank_full"))  # headline first
    if not ranks:
        errors = ("squared_error", "absolute_error", "num_ratings")
        columns = {name: notes[f"per_user_{name}"] for name in errors}
        return pd.DataFrame({"user_id": user_ids, "num_train": num_train, **columns})
    user = np.repeat(np.arange(data.num_users), np.diff(test.offsets))
    return pd.DataFrame(
        {
            "user_id": user_ids[user],
            "held_out_item_id": data.item_ids[test.item],
            "num_train": num_train[user],
            **ranks,
        }
    )


def _recommendations(data: Prepared, notes: Notes) -> pd.DataFrame:
    """Top unseen items of every user, best first."""
    item, score = notes["per_user_recommended"], notes["per_user_score"]
    num_users, k = item.shape
    frame = pd.DataFrame(
        {
            "user_id": np.repeat(data.user_ids[data.user_codes], k),
            "rank": np.tile(np.arange(1, k + 1), num_users),
            "item_id": data.item_ids[item.ravel()],
            "score": score.ravel(),
        }
    )
    if "title" in data.items:
        frame.insert(3, "title", data.items["title"].to_numpy()[item.ravel()])
    return frame[np.isfinite(score.ravel())]  # a user may have fewer than k unseen items


def _keep_selected(store: Path, slot: str) -> None:
    """Link the personal parameters of the selected round directly into the store.

    The slot keeps them too, because a run that is killed after this point repeats these steps.
    """
    if not (store / slot).is_dir():
        return  # the nodes are on other machines
    for file in (store / slot).glob("*.npy"):
        copy_or_link(file, store / file.name)
    (store / "PRIVATE.txt").write_text(_PRIVATE_NOTICE)


def _summary(record: RunSummary, data: Prepared, outcome: Outcome) -> dict[str, Any]:
    selected = outcome.selected
    participations = int(outcome.rounds_participated.sum())
    train_seconds = outcome.seconds["train"]
    return {
        "selected_round": selected.round,
        "stopped_at": outcome.stopped_at,
        "num_test_users": _num_test_users(data),
        "validation": selected.metrics[Part.VALIDATION],
        "test": selected.metrics[Part.TEST],
        "test_standard_error": selected.standard_errors[Part.TEST],
        "fairness": {},  # filled in later; here for the order of the keys
        "best_test_round": _round_metrics(outcome.best_test),
        "lost_replies": dict(sorted(outcome.failures.items())),
        **outcome.privacy,
        "seconds": record.seconds(outcome.seconds),
        "clients_per_second": participations / train_seconds if train_seconds else None,
        "bytes": {
            "down_per_client": outcome.bytes_down,
            "up_per_client": outcome.bytes_up,
            "total": (outcome.bytes_down + outcome.bytes_up) * participations,
        },
    }


def _round_metrics(evaluated: Evaluated) -> dict[str, float]:
    return {"round": evaluated.round, **evaluated.metrics[Part.TEST]}


def _fairness(data: Prepared, notes: Notes) -> dict[str, float]:
    """Fairness across users: by NDCG@10 in full ranking, or by the error of their ratings."""
    if "per_test_rank_full" in notes:
        test = data.part(Part.TEST)
        rank = notes["per_test_rank_full"]
        metric = NDCG(10)
        ascending = rank[np.lexsort((rank, test.users()))]
        num_candidates = np.full(data.num_users, data.num_items)
        quality = metric(Ranks(ascending, np.asarray(test.offsets), num_candidates))
        name = metric.name
    else:
        count = notes["per_user_num_ratings"]
        squared = notes["per_user_squared_error"]
        quality = np.where(count > 0, -squared / np.maximum(count, 1), np.nan)
        name = "negative_mse"
    client = np.repeat(np.arange(data.num_clients), np.diff(data.client_offsets))
    activity = np.diff(data.part(Part.TRAIN).offsets)
    return {
        f"worst_decile_{name}": worst_decile(quality, client),
        f"activity_gap_{name}": activity_gap(quality, activity),
    }


def _num_test_users(data: Prepared) -> int:
    return int((np.diff(data.part(Part.TEST).offsets) > 0).sum())


def _recommended(notes: Notes) -> NDArray[np.int32]:
    """(num_users, k): top unseen items, best first; -1 if a user has fewer than k."""
    listed = notes["per_user_recommended"]
    return np.where(np.isfinite(notes["per_user_score"]), listed, -1).astype(np.int32)


def _beyond(data: Prepared, notes: Notes) -> dict[str, float]:
    """Coverage, concentration, novelty and diversity of the recommended lists."""
    best = _recommended(notes)
    popularity = np.bincount(data.part(Part.TRAIN).item, minlength=data.num_items)
    flags = genre_flags(data.items)
    genres = None if flags.empty else flags.to_numpy(bool)
    return beyond_accuracy(best, popularity, data.num_users, genres)


def _draw(folder: RunFolder, clients: pd.DataFrame | None, summary: Mapping[str, Any]) -> None:
    """Draw the figures of one run from its tables."""
    from fedrec_flower.reports import (
        figures as plots,
    )  # imported here: matplotlib needs memory during training

    name = folder.path.resolve().name  # older runs may lie below the folder
    runs = load_runs(folder.path)
    metrics = list(summary["test_standard_error"])
    metric = next(candidate for candidate in ("ndcg@10", "rmse", *metrics) if candidate in metrics)
    figures = {"convergence": plots.convergence(runs[runs["run"] == name], metric)}
    if clients is not None:
        user_metric = "rmse" if metric == "rmse" else "hr@10"
        users = load_per_user(folder.path)
        activity = by_activity(users[users["run"] == name], user_metric)
        figures |= {
            "metric_by_activity": plots.metric_by_activity(activity, user_metric),
            "participation": plots.participation(clients),
            "data_partition": plots.data_partition(clients),
        }
    for file_name, figure in figures.items():
        plots.save(figure, folder.figures, file_name)

"""The end of a completed run: per-user tables, recommendations, model, figures, summary.

A researcher owns all nodes of a simulation, so the per-user results that nodes noted on their own
disk can be gathered here. The strategy never sees them. In a deployment they stay with the nodes:
such a run leaves no table of users or clients.
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
from fedrec_flower.evaluation.metrics.beyond_accuracy import beyond_accuracy
from fedrec_flower.evaluation.metrics.fairness import activity_gap, worst_decile
from fedrec_flower.evaluation.metrics.ranking import NDCG, Ranks
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.summary import Record
from fedrec_flower.federation.server.plan import Evaluated, Outcome
from fedrec_flower.reports.activity import by_activity
from fedrec_flower.reports.load import load_per_user, load_runs
from fedrec_flower.threats.base import LOWER_BOUND, NoAttack

_LOG = logging.getLogger(__name__)

Notes = Mapping[str, NDArray[Any]]

_PRIVATE = """These files are personal parameters: on devices they would never leave their client.
Do not publish them. Each array has a row per user (or per client), in the order of clients.csv;
written.npy tells which clients ever trained: the rows of the others are zeros.
"""


def publish(
    record: Record, data: Prepared, outcome: Outcome, attack: NoAttack, *, deployed: bool
) -> dict[str, Any]:
    """Write every table and figure of a completed run, and its summary.

    Args:
        record: the run's summary so far.
        data: the prepared data.
        outcome: what the strategy gives back.
        attack: says what it achieved.
        deployed: whether the nodes' disks are their own.

    Returns:
        The complete summary.

    Raises:
        FedrecError: if the nodes' notes cannot be read here, or the disk is full.
    """
    folder = record.folder
    folder.write_model(outcome.selected.parameters, data.item_ids, outcome.privacy)
    record.learn(_summary(record, data, outcome))
    clients = None if deployed else _publish_users(record, data, outcome, attack)
    record.learn({"status": "completed"})
    folder.write_summary(record.summary)
    try:
        if outcome.selected.num_clients:  # of deployed clients under local privacy nothing is known
            _draw(folder, clients, record.summary)
    except Exception as error:  # noqa: BLE001  # a finished run is not undone by a figure
        _LOG.warning("the run is complete but for its figures: %s", error)
    return record.summary


def _publish_users(
    record: Record, data: Prepared, outcome: Outcome, attack: NoAttack
) -> pd.DataFrame:
    """Write the tables of users and clients, and learn what follows; returns that of clients."""
    folder, notes = record.folder, _read_notes(record.folder.path / "clients")
    folder.write_table("per_user", _per_user(data, notes))
    folder.write_table("recommendations", _recommendations(data, notes))
    clients = data.clients.assign(rounds_participated=outcome.rounds_participated)
    folder.write_table("clients", clients)
    _keep_selected(folder.path / "clients", outcome.selected.slot)
    test = record.summary["test"] | _beyond(data, notes)
    record.learn({"test": test, "fairness": _fairness(data, notes)})
    if achieved := attack.measured(data, _recommended(notes)):
        record.learn({"attack": achieved | LOWER_BOUND})
    return clients


def _read_notes(store: Path) -> Notes:
    files = sorted((store / "notes").glob("*.npy"))
    if not files:
        raise FedrecError(
            f"the nodes left no notes in {store}: on a cluster, set output_dir= to a folder on a "
            "disk that all machines share"
        )
    return {file.stem: np.load(file) for file in files}


def _per_user(data: Prepared, notes: Notes) -> pd.DataFrame:
    """One row per user and held-out item (ranking), or per user (rating); ids are original."""
    train, test = data.part(Part.TRAIN), data.part(Part.TEST)
    user_ids = data.user_ids[data.user_codes]
    num_train = np.diff(train.offsets)
    noted = {name.removeprefix("per_test_"): n for name, n in notes.items() if "_test_" in name}
    ranks = dict(sorted(noted.items(), key=lambda pair: pair[0] != "rank_full"))  # headline first
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
    """The best unseen items of every user, best first."""
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
    """Put the personal parameters of the selected round where one looks for them.

    The slot keeps them too: a run that is killed from here on does all of this again.
    """
    if not (store / slot).is_dir():
        return  # the nodes' disks are not ours
    for file in (store / slot).glob("*.npy"):
        copy_or_link(file, store / file.name)
    (store / "PRIVATE.txt").write_text(_PRIVATE)


def _summary(record: Record, data: Prepared, outcome: Outcome) -> dict[str, Any]:
    selected, best = outcome.selected, outcome.best_test
    participations = int(outcome.rounds_participated.sum())
    trained = outcome.seconds["train"]
    return {
        "selected_round": selected.round,
        "stopped_at": outcome.stopped_at,
        "num_test_users": _num_test_users(data),
        "validation": selected.metrics[Part.VALIDATION],
        "test": selected.metrics[Part.TEST],
        "test_standard_error": selected.standard_errors[Part.TEST],
        "fairness": {},  # takes its place here
        "best_test_round": _named(best),
        "lost_replies": dict(sorted(outcome.lost.items())),
        **outcome.privacy,
        "seconds": record.seconds(outcome.seconds),
        "clients_per_second": participations / trained if trained else None,
        "bytes": {
            "down_per_client": outcome.bytes_down,
            "up_per_client": outcome.bytes_up,
            "total": (outcome.bytes_down + outcome.bytes_up) * participations,
        },
    }


def _named(best: Evaluated) -> dict[str, float]:
    return {"round": best.round, **best.metrics[Part.TEST]}


def _fairness(data: Prepared, notes: Notes) -> dict[str, float]:
    """How evenly users are served: by NDCG@10 in full ranking, or by the error of their ratings."""
    if "per_test_rank_full" in notes:
        test, rank, metric = data.part(Part.TEST), notes["per_test_rank_full"], NDCG(10)
        ascending = rank[np.lexsort((rank, test.users()))]
        everything = np.full(data.num_users, data.num_items)
        quality = metric(Ranks(ascending, np.asarray(test.offsets), everything))
        name = metric.name
    else:
        count, squared = notes["per_user_num_ratings"], notes["per_user_squared_error"]
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
    """(num_users, k): the best unseen items, best first; -1 where there are fewer."""
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
    """The figures of one run, read from its own tables like any later plot."""
    from fedrec_flower.reports import (
        figures as plots,
    )  # here: matplotlib takes memory that training may need

    own = folder.path.resolve().name  # older runs may lie below the folder
    runs = load_runs(folder.path)
    measured = list(summary["test_standard_error"])
    metric = next(name for name in ("ndcg@10", "rmse", *measured) if name in measured)
    drawn = {"convergence": plots.convergence(runs[runs["run"] == own], metric)}
    if clients is not None:
        served = "rmse" if metric == "rmse" else "hr@10"
        users = load_per_user(folder.path)
        activity = by_activity(users[users["run"] == own], served)
        drawn |= {
            "metric_by_activity": plots.metric_by_activity(activity, served),
            "participation": plots.participation(clients),
            "data_partition": plots.data_partition(clients),
        }
    for name, figure in drawn.items():
        plots.save(figure, folder.figures, name)

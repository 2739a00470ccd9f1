"""Evaluation of many clients at once equals evaluation of one client after another."""

from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.federation.client import client_scoring
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.strategies.base import VERSIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.helpers.federations import Federate, Federated

SILOS = ("partition=silo_random", "partition.num_clients=5")
RUNS = [
    ("model=mf",),
    ("model=mf", *SILOS),
    ("model=gru4rec",),
    ("model=pfedrec",),
    ("model=pfedrec", *SILOS),
    ("model=pfedrec", "model.score_with=own", "clients_per_round=7"),
    ("model=gpfedrec",),
    ("model=fedrap",),
    ("model=fedrap", "model.score_with=own"),
    ("model=fedrap", "task=rating", "evaluation=rating"),
    ("strategy=local_only",),
    ("strategy=local_only", *SILOS),
    ("strategy=local_only", "model=ncf", "model.variant=neumf"),
    ("strategy=local_only", "model=sasrec"),
    ("strategy=local_only", "model=hybrid"),
    ("strategy=local_only", "model=ease"),
    ("strategy=clustered", "strategy.num_clusters=2"),
    ("strategy=user_graph",),
    ("model=mf", "finetune_epochs=1"),
    ("model=mf", "finetune_epochs=1", *SILOS),
    ("model=mf", "finetune_epochs=1", "task=rating", "evaluation=rating"),
    ("model=ncf", "finetune_epochs=1"),
    ("model=ncf", "model.variant=neumf", "finetune_epochs=1"),
    ("model=pfedrec", "finetune_epochs=1", "model.score_with=own"),
    ("strategy=local_only", "finetune_epochs=1"),
    ("strategy=user_graph", "finetune_epochs=1"),
    ("model=sasrec", "finetune_epochs=1"),
]


Result = tuple[int, dict[str, list[float]], dict[str, "NDArray[Any]"]]


def evaluated(ran: "Federated", store: Path, batches: list[list[int]]) -> Result:
    """Evaluate clients with the parameters after the last round, some of them at once.

    Returns:
        Number of users; metric sums; records of all users.
    """
    copytree(ran.store, store)
    node = ran.open_node(store=store, run=str(store))
    shared = dict(ran.shared)
    versions = shared.pop(VERSIONS, None)
    config: dict[str, Any] = {"slot": "current", "note": True, "round": 4}
    num_users, sums = 0, dict[str, Any]()
    for clients in batches:
        if versions is not None:
            config["versions"] = versions[clients].tolist()
        client = CohortClient(node, clients)
        _, count, of_batch = client.evaluate([shared[n] for n in node.shared_names], config)
        num_users += count
        sums = {name: np.add(of_batch[name], sums.get(name, 0.0)) for name in of_batch}
    records = {file.stem: np.load(file) for file in sorted((store / "notes").glob("*.npy"))}
    return num_users, sums, records


@pytest.mark.parametrize("words", RUNS, ids=" ".join)
def test_evaluation_at_once_equals_evaluation_one_by_one(
    federate: "Federate", tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = federate(*words, "num_rounds=2")
    clients = np.random.default_rng(3).permutation(ran.setup.data.num_clients).tolist()
    alone = evaluated(ran, tmp_path / "alone", [[client] for client in clients])
    for floats in (10**9, 8000):  # all clients of a size at once, and a few
        monkeypatch.setattr(client_scoring, "_FLOATS_PER_CHUNK", floats)
        num_users, sums, records = evaluated(
            ran, tmp_path / str(floats), [clients[:3], clients[3:]]
        )
        assert num_users == alone[0] == ran.setup.data.num_users
        for name, values in alone[1].items():
            assert_allclose(sums[name], values, rtol=1e-6 if "rating" in words[-1] else 1e-12)
        for name, rows in alone[2].items():
            if np.issubdtype(rows.dtype, np.floating):
                assert_allclose(records[name], rows, rtol=1e-4, atol=1e-6, err_msg=name)
            else:
                assert_array_equal(records[name], rows, err_msg=name)

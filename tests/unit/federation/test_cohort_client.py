"""Laws of the NumPyClients: a cohort equals its clients, and only sums leave the node."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pytest
from flwr.client import NumPyClient
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.scoring import ModelScorer
from fedrec_flower.federation.client.cohort_client import CohortClient, RecommenderClient
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.job import NodePlace

if TYPE_CHECKING:
    from tests.conftest import PrepareSmall

Kind = Literal["mf", "ncf", "local_only"]
EVERY_KIND = pytest.mark.parametrize("kind", ["mf", "ncf", "local_only"])
HOLDERS = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 4]  # five clients of twelve users
MODELS: dict[str, dict[str, Any]] = {
    "mf": {"_target_": "fedrec_flower.models.MF", "embedding_dim": 4, "init_std": 0.1},
    "ncf": {
        "_target_": "fedrec_flower.models.NCF",
        "variant": "neumf",
        "embedding_dim": 4,
        "hidden_dims": [6],
        "init_std": 0.1,
    },
}
TRAINING = {
    "_target_": "fedrec_flower.training.LocalTraining",
    "engine": "vectorized",
    "device": "cpu",
    "memory_budget_mb": 64,
    "loss": "bce",
    "optimizer": "sgd",
    "learning_rate": 0.5,
    "dense_learning_rate": 0.05,
    "weight_decay": 0.01,
    "local_epochs": 1,
    "batch_size": 16,
    "num_negatives": 2,
}
EVALUATION = {
    "_target_": "fedrec_flower.evaluation.RankingEvaluation",
    "metrics": ["hr@5", "ndcg@5"],
    "num_negatives": 5,
    "top_k": 3,
    "every": 1,
    "num_clients": None,
    "select_by": "ndcg@5",
    "test_history": "train",
}
CURRENT = {"slot": "current", "note": False}


@pytest.fixture
def data(prepare_small: "PrepareSmall") -> Prepared:
    return prepare_small(HOLDERS)


class Open(Protocol):
    """Opens a node with an empty store."""

    def __call__(self, kind: Kind, *, name: str = "store") -> Node:
        """Nodes of different names have stores of their own."""
        ...


@pytest.fixture
def open_fresh(data: Prepared, tmp_path: Path) -> Open:
    """Open nodes with empty stores."""

    def make(kind: Kind, *, name: str = "store") -> Node:
        job = {
            "model": MODELS["mf" if kind == "local_only" else kind],
            "training": TRAINING,
            "evaluation": EVALUATION,
            "privacy": {"_target_": "fedrec_flower.privacy.NoPrivacy"},
            "task": "ranking",
            "negatives": "honest",
            "seed": 1,
            "num_rounds": 1,
            "freeze": [],
            "finetune_epochs": 0,
            "data": "",
            "run": name,
            "session": "",
            "communicates": kind != "local_only",
            "compression": {"_target_": "fedrec_flower.communication.compression.NoCompression"},
            "faults": {"_target_": "fedrec_flower.threats.NoFaults"},
            "attack": {"_target_": "fedrec_flower.threats.NoAttack"},
            "secure_aggregation": {
                "_target_": "fedrec_flower.communication.secure_aggregation.NoSecureAggregation"
            },
            "randomness": "seeded",
            "limits": {"weight": 1e3, "value": 1e6},
        }
        place = NodePlace(prepared=str(data.path), store=str(tmp_path / name))
        return open_node(json.dumps(job), place)

    return make


def parameters(node: Node) -> list[NDArray[Any]]:
    drawn = node.model.initial(node.shared_names, generator(1, "initial-shared"))
    return [drawn[name] for name in node.shared_names]


def test_clients_are_flower_numpy_clients(open_fresh: Open) -> None:
    node = open_fresh("mf")
    assert isinstance(CohortClient(node, [0]), NumPyClient)
    assert isinstance(RecommenderClient(node, 0), NumPyClient)


@EVERY_KIND
def test_cohort_reply_is_the_sum_of_its_clients_replies(open_fresh: Open, kind: Kind) -> None:
    node, other = open_fresh(kind), open_fresh(kind, name="other")
    together, weight, metrics = CohortClient(node, [0, 2, 3]).fit(parameters(node), {"round": 1})
    alone = [CohortClient(other, [c]).fit(parameters(other), {"round": 1}) for c in (0, 2, 3)]
    assert weight == sum(reply[1] for reply in alone)
    assert metrics["loss"] == pytest.approx(sum(reply[2]["loss"] for reply in alone))
    assert metrics["bytes_up"] == sum(reply[2]["bytes_up"] for reply in alone)
    for place, array in enumerate(together):
        total = np.sum([reply[0][place] for reply in alone], axis=0)
        assert_allclose(array, total, rtol=1e-4, atol=1e-5)
    for client in range(5):
        mine, theirs = (n.store.load(n.data.client(client)) for n in (node, other))
        for name, value in mine.items():
            assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-6)


@EVERY_KIND
def test_cohort_reply_has_shared_tensors_and_row_weights(open_fresh: Open, kind: Kind) -> None:
    node = open_fresh(kind)
    arrays, weight, metrics = CohortClient(node, [1, 4]).fit(parameters(node), {"round": 1})
    assert weight == len(node.data.client(1)) + len(node.data.client(4))
    assert set(metrics) == {"loss", "bytes_up", "replied", "lost", "reasons"}
    if not parameters(node):
        assert arrays == []  # neither parameters nor touched rows are sent
        return
    *sums, row_weight = arrays
    assert [array.shape for array in sums] == [array.shape for array in parameters(node)]
    assert row_weight.shape == (node.data.num_items,)
    trained = set(node.data.client(1).train.item.tolist())
    assert min(row_weight[list(trained)]) >= len(node.data.client(1))


@EVERY_KIND
def test_training_changes_only_the_personal_parameters_of_the_cohort(
    open_fresh: Open, kind: Kind
) -> None:
    node = open_fresh(kind)
    before = [node.store.load(node.data.client(client)) for client in range(5)]
    CohortClient(node, [1, 4]).fit(parameters(node), {"round": 1})
    for client, old in enumerate(before):
        new = node.store.load(node.data.client(client))
        same = all(np.array_equal(old[name], new[name]) for name in old)
        assert same == (client not in (1, 4))


@EVERY_KIND
def test_recommender_client_equals_a_cohort_of_one(open_fresh: Open, kind: Kind) -> None:
    node, other = open_fresh(kind), open_fresh(kind, name="other")
    given = parameters(node)
    new, weight, metrics = RecommenderClient(node, 2).fit(given, {"round": 3})
    arrays, total, sums = CohortClient(other, [2]).fit(parameters(other), {"round": 3})
    assert weight == total == len(node.data.client(2))
    assert metrics["loss"] == pytest.approx(sums["loss"] / total)
    for ours, old, update in zip(new, given, arrays[:-1], strict=True):
        assert_allclose(ours, old + update / total, rtol=1e-5, atol=1e-6)
    mine, theirs = (n.store.load(n.data.client(2)) for n in (node, other))
    for name, value in mine.items():
        assert_array_equal(value, theirs[name])
    scored = RecommenderClient(node, 2).evaluate(given, CURRENT)
    assert scored == CohortClient(other, [2]).evaluate(given, CURRENT)


@EVERY_KIND
def test_evaluation_sums_are_the_sums_of_the_clients(open_fresh: Open, kind: Kind) -> None:
    node = open_fresh(kind)
    CohortClient(node, [1, 2]).fit(parameters(node), {"round": 1})
    _, num_users, together = CohortClient(node, [0, 1, 2, 4]).evaluate(parameters(node), CURRENT)
    alone = [CohortClient(node, [c]).evaluate(parameters(node), CURRENT) for c in (4, 0, 2, 1)]
    assert num_users == sum(reply[1] for reply in alone) == 12 - 2
    for key, sums in together.items():
        assert sums == pytest.approx(np.sum([reply[2][key] for reply in alone], axis=0).tolist())
        assert sums[2] == num_users


def test_evaluation_without_clients_counts_no_user(open_fresh: Open) -> None:
    node = open_fresh("mf")
    assert CohortClient(node, []).evaluate(parameters(node), CURRENT) == (0.0, 0, {})


def test_evaluation_uses_the_personal_parameters_of_its_slot(open_fresh: Open) -> None:
    node = open_fresh("mf")
    everyone = CohortClient(node, range(5))
    untrained = everyone.evaluate(parameters(node), CURRENT)
    node.store.snapshot(range(5), "old", 3)
    for round_ in range(1, 30):
        everyone.fit(parameters(node), {"round": round_})
    assert everyone.evaluate(parameters(node), CURRENT) != untrained
    assert everyone.evaluate(parameters(node), {"slot": "old", "note": False}) == untrained


@EVERY_KIND
def test_records_are_in_the_order_of_the_prepared_users(open_fresh: Open, kind: Kind) -> None:
    node, data = open_fresh(kind), open_fresh(kind).data
    CohortClient(node, range(5)).evaluate(parameters(node), {"slot": "current", "note": True})
    notes = node.store.folder / "notes"
    rank = np.load(notes / "per_test_rank_full.npy")
    lists = np.load(notes / "per_user_recommended.npy")
    assert len(rank) == len(data.part(Part.TEST).item)
    for client in range(5):
        one = node.evaluator
        own = data.client(client)
        shared = dict(zip(node.shared_names, parameters(node), strict=True))
        node.model.load(shared | node.store.load(own))
        records = one.evaluate(
            ModelScorer(node.model), UserBatch.of(own), data.num_items, seed=1
        ).records
        users = slice(own.first, own.first + own.num_users)
        tests = slice(*data.part(Part.TEST).offsets[[own.first, own.first + own.num_users]])
        assert_array_equal(lists[users], records["per_user_recommended"])
        assert_array_equal(rank[tests], records["per_test_rank_full"])


def test_client_without_training_data_can_be_a_cohort_of_one(
    open_fresh: Open, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    del data
    node = open_fresh("mf")
    monkeypatch.setattr(node.data, "_parts", _without_training(node.data, 2))
    given = parameters(node)
    new, weight, metrics = RecommenderClient(node, 2).fit(given, {"round": 1})
    assert weight == 0
    assert np.isfinite(metrics["loss"])
    for ours, old in zip(new, given, strict=True):
        assert_array_equal(ours, old)


def _without_training(data: Prepared, client: int) -> dict[Part, Any]:
    """The parts of the data without training data of one client."""
    from fedrec_flower.data.prepared import Columns

    train = data.part(Part.TRAIN)
    user, first, stop = train.users(), *data.client_offsets[client : client + 2]
    kept = (user < first) | (user >= stop)
    counts = np.bincount(user[kept], minlength=data.num_users)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return {part: data.part(part) for part in Part} | {
        Part.TRAIN: Columns(offsets, train.item[kept], None)
    }

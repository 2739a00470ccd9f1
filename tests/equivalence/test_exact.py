"""Closed-form models: the solution does not depend on the partition, and only sums are sent."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Columns
from fedrec_flower.experiment.compatibility import check_strategy
from fedrec_flower.federation.client.cohort_client import CohortClient, RecommenderClient
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.training.model_versions import Versions

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

MODELS = ("ease", "ials", "itemknn", "popularity", "random")
EVERY_MODEL = pytest.mark.parametrize("model", MODELS)
EVERY_LEARNER = pytest.mark.parametrize("model", MODELS[:-1])
HOLDERS = {
    "one user a client": (),
    "a node per client": ("federation.num_nodes=24",),
    "silos": ("partition=silo_random", "partition.num_clients=5", "federation.num_nodes=2"),
}


def assert_same(one: "Federated", other: "Federated") -> None:
    assert set(one.shared) == set(other.shared)
    for name, value in one.shared.items():
        assert_allclose(other.shared[name], value, rtol=1e-5, atol=1e-5)
    table = one.metric_table()
    for key, metric in other.metric_table().items():
        assert metric == pytest.approx(table[key], abs=1e-5)


@EVERY_LEARNER
@pytest.mark.parametrize("holders", HOLDERS)
def test_federated_solution_equals_the_centralised_one(
    federate: "Federate", model: str, holders: str
) -> None:
    central = federate(f"model={model}", "federation=centralized")
    assert central.setup.data.num_clients == 1
    assert_same(central, federate(f"model={model}", *HOLDERS[holders]))


@EVERY_LEARNER
def test_every_client_scores_as_the_centralised_model(federate: "Federate", model: str) -> None:
    one, many = (federate(f"model={model}", *more) for more in ((), ("federation=centralized",)))
    notes = [np.load(ran.store / "notes" / "per_user_score.npy") for ran in (one, many)]
    order = [np.argsort(ran.setup.data.user_codes) for ran in (one, many)]
    ours, theirs = (note[rows] for note, rows in zip(notes, order, strict=True))
    assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@EVERY_LEARNER
def test_server_solution_equals_solve_alone_on_all_data(federate: "Federate", model: str) -> None:
    ran = federate(f"model={model}", "num_rounds=2")
    assert isinstance(ran.setup.model, ClosedFormRecommender)
    train, initial = ran.setup.data.part(Part.TRAIN), ran.setup.initial(ran.strategy)
    for name, value in ran.setup.model.solve_alone(train, initial, 2).items():
        assert_allclose(ran.shared[name], value, rtol=1e-5, atol=1e-5)


def test_a_round_uses_the_statistics_of_its_cohort_only(federate: "Federate") -> None:
    ran = federate("model=popularity", "clients_per_round=7", "num_rounds=1")
    cohort = np.flatnonzero(ran.outcome.rounds_participated)
    assert len(cohort) == 7
    items = [ran.setup.data.client(int(client)).train.item for client in cohort]
    counts = np.bincount(np.concatenate(items), minlength=ran.setup.data.num_items)
    assert_array_equal(ran.shared["popularity"], counts)


@EVERY_MODEL
def test_zero_rounds_keep_the_initial_model(federate: "Federate", model: str) -> None:
    ran = federate(f"model={model}", "num_rounds=0")
    for name, value in ran.setup.initial(ran.strategy).items():
        assert_array_equal(ran.shared[name], value)


# --- messages ---------------------------------------------------------------------------------


@EVERY_MODEL
def test_messages_contain_statistics_whose_shapes_do_not_depend_on_users(
    federate: "Federate", model: str
) -> None:
    ran = federate(f"model={model}", "num_rounds=2", "federation.num_nodes=3")
    assert isinstance(ran.setup.model, ClosedFormRecommender)
    nobody = Columns(np.zeros(1, np.int64), np.zeros(0, np.int32), None)
    parameters = ran.setup.initial(ran.strategy)
    shapes = {n: v.shape for n, v in ran.setup.model.statistics(nobody, parameters).items()}
    assert ran.personal.keys() == set(ran.setup.model.personal_names())
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    assert len(replies) == 2 * 3
    for reply in replies:
        sent = {n: a.numpy() for n, a in reply.content.array_records["update"].items()}
        assert sent.pop("row_weight", np.zeros(0)).shape == (0,)
        assert {name: array.shape for name, array in sent.items()} == shapes


@EVERY_MODEL
def test_bytes_up_equal_the_size_of_the_statistics(federate: "Federate", model: str) -> None:
    ran = federate(f"model={model}")
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    records = [reply.content.array_records["update"] for reply in replies]
    sizes = {sum(len(array.data) for array in record.values()) for record in records}
    assert sizes == {ran.outcome.bytes_up}


# --- local only -------------------------------------------------------------------------------


@EVERY_LEARNER
def test_local_only_equals_each_clients_own_fit(federate: "Federate", model: str) -> None:
    ran = federate(f"model={model}", "strategy=local_only", "num_rounds=2")
    assert ran.shared == {}
    assert ran.outcome.bytes_up == 0
    node = ran.open_node()
    assert isinstance(node.model, ClosedFormRecommender)
    data = node.data.client(5)
    [(users, scorer)] = node.scorers([5], Versions.single({}), "current", round_=2)
    scored = np.concatenate([part for _, part in scorer.batches(users, node.data.num_items)])
    rng = generator(ran.setup.seed, "initial-personal", 0, data.client)
    initial = node.model.initial(node.model.shared_names(), rng)
    node.model.load(node.model.solve_alone(data.train, initial, 2))
    assert_array_equal(node.model.score_histories(np.arange(data.num_users)), scored)


@EVERY_LEARNER
def test_local_only_stores_no_item_matrix(federate: "Federate", model: str) -> None:
    ran = federate(f"model={model}", "strategy=local_only")
    assert not set(ran.personal) & set(ran.setup.model.shared_names())


@EVERY_LEARNER
def test_local_only_gives_equal_scores_to_all_unseen_items(
    federate: "Federate", model: str
) -> None:
    """All unseen items tie, and ties count against the model: fewer hits than by chance."""
    ran = federate(f"model={model}", "strategy=local_only")
    last = ran.watcher.metrics[3]
    for part in (Part.VALIDATION, Part.TEST):
        assert last[part]["hr@10"] == 0.0


# --- one client of Flower's own strategies ----------------------------------------------------


@EVERY_LEARNER
def test_a_recommender_client_replies_with_its_own_solution(
    federate: "Federate", model: str
) -> None:
    ran = federate(f"model={model}", "num_rounds=1", "partition=single")
    node = ran.open_node(run="again")
    initial = ran.setup.initial(ran.strategy)
    arrays = [initial[name] for name in node.shared_names]
    new, weight, _ = RecommenderClient(node, 0).fit(arrays, {"round": 1})
    assert (
        weight == CohortClient(node, [0]).fit(arrays, {"round": 1})[1] == len(node.data.client(0))
    )
    for name, array in zip(node.shared_names, new, strict=True):
        assert_allclose(array, ran.shared[name], rtol=1e-4, atol=1e-5)


# --- invalid combinations --------------------------------------------------------------------


@EVERY_MODEL
@pytest.mark.parametrize("strategy", ["fedadam", "fedavg"])
def test_closed_form_models_reject_averaging_strategies(
    federate: "Federate", model: str, strategy: str
) -> None:
    ran = federate("model=mf", f"strategy={strategy}", "num_rounds=0")
    exact = federate(f"model={model}", "num_rounds=0")
    with pytest.raises(ConfigError, match=r"solved from sums: choose strategy=sums"):
        check_strategy(ran.strategy, exact.setup.model, exact.setup.privacy_setup.secure)
    check_strategy(exact.strategy, exact.setup.model, exact.setup.privacy_setup.secure)


def test_gradient_models_reject_the_sums_strategy(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match=r"strategy=sums does not fit MF.*: choose strategy=fed"):
        federate("model=mf", "strategy=sums")


@EVERY_MODEL
def test_closed_form_models_reject_rating(federate: "Federate", model: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot predict ratings: choose task=ranking"):
        federate(f"model={model}", "task=rating")

"""Strategies with a client half: where they equal plain averaging, and where not."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.federation.client.cohort_client import CohortClient, RecommenderClient
from fedrec_flower.federation.client.node import Node
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.federations import Federate, Federated

AVERAGING = ("strategy.server_optimizer=fedavg", "strategy.server_learning_rate=1.0")
FEDAVG = ("strategy=fedavg", "strategy.server_learning_rate=1.0")
EVERY_MODEL = pytest.mark.parametrize("model", ["mf", "ncf"])
EVERY_AGGREGATION = pytest.mark.parametrize("aggregation", ["touched_clients", "all_clients"])


def assert_same(one: "Federated", other: "Federated", within: float = 1e-6) -> None:
    """Assert that two runs have the same shared and personal parameters."""
    for name, value in one.shared.items():
        assert_allclose(other.shared[name], value, rtol=within, atol=within)
    for name, value in one.personal.items():
        assert_allclose(other.personal[name], value, rtol=within, atol=within)


def moved(ran: "Federated") -> float:
    """Distance of the shared parameters from their initial values."""
    initial = ran.setup.initial(ran.strategy)
    squares = [np.square(value - initial[name]).sum() for name, value in ran.shared.items()]
    return float(np.sqrt(sum(squares)))


# --- fedprox ----------------------------------------------------------------------------------


@EVERY_MODEL
@EVERY_AGGREGATION
def test_fedprox_with_mu_zero_equals_fedavg(
    federate: "Federate", model: str, aggregation: str
) -> None:
    words = (f"model={model}", f"strategy.aggregation={aggregation}", "clients_per_round=12")
    assert_same(
        federate(*FEDAVG, *words),
        federate("strategy=fedprox", "strategy.mu=0.0", *AVERAGING, *words),
    )


@EVERY_MODEL
def test_larger_mu_gives_shorter_updates(federate: "Federate", model: str) -> None:
    words = (f"model={model}", "strategy=fedprox", *AVERAGING, "num_rounds=1")
    ways = [
        moved(federate(*words, "training.local_epochs=8", f"strategy.mu={mu}"))
        for mu in (0.0, 0.1, 0.5, 1.0)
    ]
    assert ways == sorted(ways, reverse=True)
    assert ways[-1] < 0.5 * ways[0]


# --- scaffold ---------------------------------------------------------------------------------


@EVERY_MODEL
@EVERY_AGGREGATION
def test_scaffold_with_one_client_equals_fedavg(
    federate: "Federate", model: str, aggregation: str
) -> None:
    one_client = ("partition=single", f"model={model}", f"strategy.aggregation={aggregation}")
    words = (*one_client, "num_rounds=4", "training.local_epochs=3")
    ours = federate("strategy=scaffold", *AVERAGING, *words)
    assert_same(federate(*FEDAVG, *words), ours, within=1e-6)
    control = ours.strategy.extra_tensors()[f"{CONTROL_VARIATE_PREFIX}item_embedding.weight"]
    assert np.abs(control).max() > 1e-5


def test_server_control_variate_is_the_mean_of_the_clients(federate: "Federate") -> None:
    ran = federate("strategy=scaffold", "model=ncf", "num_rounds=4", "federation.num_nodes=3")
    weights = np.array([len(ran.setup.data.client(client)) for client in range(24)])
    for name, mean in ran.strategy.extra_tensors().items():
        kept = np.load(ran.store / "current" / f"{name}.npy")
        expected = np.average(kept, axis=0, weights=weights)
        assert_allclose(mean, expected, rtol=1e-4, atol=1e-6)
        assert np.abs(mean).max() > 0


def test_server_control_variate_excludes_dropped_out_clients(
    federate: "Federate",
) -> None:
    words = ("strategy=scaffold", "model=ncf", "num_rounds=12", "min_completion=0")
    ran = federate(*words, "faults=custom", "faults.dropout=0.5")
    for name, control in ran.strategy.extra_tensors().items():
        kept = np.load(ran.store / "current" / f"{name}.npy").mean(axis=0)
        assert (
            0.7 < np.linalg.norm(control) / np.linalg.norm(kept) < 1.4
        )  # dropped-out clients counted: 2


def test_scaffold_doubles_the_bytes_both_ways(federate: "Federate") -> None:
    plain, ours = federate(*FEDAVG), federate("strategy=scaffold", *AVERAGING)
    for kind in ("bytes_down", "bytes_up"):
        before, after = (getattr(ran.outcome, kind) for ran in (plain, ours))
        assert after == pytest.approx(2 * before, rel=0.15)


@pytest.mark.parametrize("negatives", [1, 40])  # a few rows, and enough rows to send whole tables
def test_bytes_of_control_variates_are_counted_as_sent(
    federate: "Federate", negatives: int
) -> None:
    words = ("strategy=scaffold", "clients_per_round=10", f"training.num_negatives={negatives}")
    ran = federate(*words, "federation.num_nodes=24")
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    records = [reply.content.array_records["update"] for reply in replies]
    sent = [sum(len(array.data) for array in record.values()) for record in records]
    assert ran.outcome.bytes_up == round(sum(sent) / len(sent))
    given = next(m for m in ran.tap.asked if m.metadata.message_type == "train")
    arrays = given.content.array_records["parameters"].values()
    assert ran.outcome.bytes_down == sum(len(array.data) for array in arrays)


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn"])
def test_restored_state_equals_the_saved_state(federate: "Federate", strategy: str) -> None:
    one, other = (federate(f"strategy={strategy}", f"num_rounds={n}") for n in (3, 1))
    state = {name: value.copy() for name, value in one.strategy.state().items()}
    other.strategy.restore(state)
    again = other.strategy.state()
    assert again.keys() == state.keys()
    assert state
    for name, value in state.items():
        assert_array_equal(again[name], value)


@pytest.mark.parametrize("strategy", ["scaffold", "feddyn"])
def test_control_variates_require_sgd(federate: "Federate", strategy: str) -> None:
    with pytest.raises(ConfigError, match=rf"strategy={strategy} computes .* choose sgd"):
        federate(f"strategy={strategy}", "training.optimizer=adam")


# --- a problem whose answer is known: ratings as sums of biases, a convex one -----------------

UNEVEN = (
    "task=rating",
    "model.init_std=0.0",  # zero vectors stay zero, so only biases are trained
    "training.weight_decay=0.0",
    "training.learning_rate=0.3",
    "training.dense_learning_rate=0.05",
    "training.batch_size=null",
    "training.local_epochs=20",
    "evaluation.every=1000",
    "strategy.aggregation=touched_clients",
)


def excess(ran: "Federated") -> float:
    """Difference of the mean squared error over all clients from its minimum."""
    data = ran.setup.data
    every = [data.client(client) for client in range(data.num_clients)]
    user = np.concatenate([d.train.users() + d.first for d in every])
    item = np.concatenate([d.train.item for d in every])
    rating = np.concatenate([np.asarray(d.train.rating, np.float64) for d in every])
    design = np.zeros((len(rating), data.num_users + data.num_items))
    design[np.arange(len(rating)), user] = 1
    design[np.arange(len(rating)), data.num_users + item] = 1
    best = rating - design @ np.linalg.lstsq(design, rating, rcond=None)[0]
    # The best personal parameters for the shared ones.
    left = rating - ran.shared["item_bias.weight"][item, 0]
    left -= (np.bincount(user, left) / np.bincount(user))[user]
    return float(np.mean(left**2) - np.mean(best**2))


def test_scaffold_and_feddyn_converge_to_the_minimum_and_fedavg_does_not(
    federate: "Federate",
) -> None:
    fedavg, longer = (excess(federate(*FEDAVG, *UNEVEN, f"num_rounds={n}")) for n in (100, 200))
    assert longer > 0.9 * fedavg  # more rounds do not help: it has converged elsewhere
    scaffold = excess(federate("strategy=scaffold", *AVERAGING, *UNEVEN, "num_rounds=200"))
    feddyn = excess(federate("strategy=feddyn", *UNEVEN, "num_rounds=200"))
    assert scaffold < 0.1 * longer
    assert feddyn < 0.5 * longer


# --- qfedavg ----------------------------------------------------------------------------------


@EVERY_MODEL
@EVERY_AGGREGATION
def test_qfedavg_with_q_zero_equals_fedavg(
    federate: "Federate", model: str, aggregation: str
) -> None:
    words = (f"model={model}", f"strategy.aggregation={aggregation}", "clients_per_round=12")
    assert_same(
        federate(*FEDAVG, *words),
        federate("strategy=qfedavg", "strategy.q=0.0", *AVERAGING, *words),
    )


# --- perfedavg --------------------------------------------------------------------------------


@EVERY_MODEL
def test_perfedavg_with_batches_of_one_sample_equals_fedavg(
    federate: "Federate", model: str
) -> None:
    words = (f"model={model}", "training.batch_size=1", "training.learning_rate=0.05")
    assert_same(
        federate(*FEDAVG, *words),
        federate("strategy=perfedavg", *AVERAGING, *words),
        within=1e-5,
    )


@EVERY_MODEL
def test_perfedavg_with_alpha_zero_trains_on_half_of_each_batch(
    federate: "Federate", model: str
) -> None:
    # With batches of two, only the second sample gives the gradient: half as many steps, of one
    # sample each.
    words = (f"model={model}", "training.learning_rate=0.05", *AVERAGING, "num_rounds=1")
    pairs = ("strategy=perfedavg", "training.batch_size=2", *words)
    still, ahead = (moved(federate(*pairs, f"strategy.alpha={alpha}")) for alpha in (0.0, 1.0))
    ones = moved(federate("strategy=perfedavg", "training.batch_size=1", *words))
    assert 0 < still < 0.9 * ones
    assert ahead != still


# --- finetuning -------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("model=mf",), ("model=ncf",), ("strategy=local_only",)])
def test_finetuning_changes_scores_but_no_parameters(
    federate: "Federate", words: tuple[str, ...]
) -> None:
    many = (*words, "evaluation.every=1", "federation.num_nodes=2")
    plain, tuned = (federate(*many, f"finetune_epochs={n}") for n in (0, 3))
    assert plain.watcher.losses == tuned.watcher.losses
    for name, value in plain.shared.items():
        assert_array_equal(tuned.shared[name], value)
    for name, value in plain.personal.items():
        assert_array_equal(tuned.personal[name], value)
    assert plain.metric_table() != tuned.metric_table()
    selected = tuned.outcome.selected
    assert selected.metrics == tuned.watcher.metrics[selected.round]


def reopened(ran: "Federated", store: "Path", **changes: Any) -> Node:
    """Open a node of the same run whose clients have not been trained."""
    return ran.open_node(store=store, **{"run": str(store), **changes})


@pytest.mark.parametrize(
    "words", [("model=mf",), ("model=ncf",), ("strategy=local_only",), ("model=sasrec",)]
)
def test_finetuned_client_scores_as_after_local_training(
    federate: "Federate", tmp_path: "Path", words: tuple[str, ...]
) -> None:
    ran = federate(*words, "num_rounds=0", "training.local_epochs=2")
    tuning = reopened(ran, tmp_path / "tuning", finetune_epochs=2)
    training = reopened(ran, tmp_path / "training")
    given = [ran.setup.initial(ran.strategy)[name] for name in training.shared_names]
    about = {"slot": "current", "note": False, "round": 5}
    for client in range(6):
        tuned = CohortClient(tuning, [client]).evaluate(given, about)
        alone = RecommenderClient(training, client)
        learnt, _, _ = alone.fit([array.copy() for array in given], {"round": 5})
        expected = alone.evaluate(learnt, about)[2]
        assert tuned[2].keys() == expected.keys()
        for name, sums in expected.items():
            assert_allclose(tuned[2][name], sums, atol=1e-6)


def test_finetuning_of_a_closed_form_model_is_an_error(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match="finetune_epochs=1 needs gradients, but EASE"):
        federate("model=ease", "finetune_epochs=1")

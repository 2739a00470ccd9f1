"""Training of one client that holds all data equals a plain PyTorch loop."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose

from fedrec_flower.core.instantiate import build
from fedrec_flower.data.interactions import Part
from tests.helpers.plain_training import train_plainly

if TYPE_CHECKING:
    from fedrec_flower.models.base import Recommender
    from tests.helpers.federations import Federate, Federated

ONE_CLIENT = ("partition=single", "num_rounds=3", "training.local_epochs=2")


def untrained(ran: "Federated") -> "Recommender":
    """The whole model, with its user vectors, before the first round."""
    setup = ran.setup
    data, job = setup.data, setup.plan.job
    model: Recommender = build(
        "model",
        job.model,
        num_users=data.num_users,
        num_items=data.num_items,
        rating_range=data.rating_range,
        task=job.task,
    )
    node = ran.open_node()
    fresh = type(node.store)(
        ran.store / "fresh", node.model, node.store._names, [], data.client_offsets, setup.seed
    )
    model.load(setup.initial(ran.strategy) | fresh.load(data.client(0)))
    return model


@pytest.mark.parametrize("model", ["mf", "ncf"])
@pytest.mark.parametrize("loss", ["bce", "bpr", "mse"])
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_one_client_with_all_data_equals_centralised_training(
    federate: "Federate", model: str, loss: str, engine: str
) -> None:
    task = "task=rating" if loss == "mse" else "task=ranking"
    ran = federate(
        *ONE_CLIENT,
        task,
        f"model={model}",
        f"training.loss={loss}",
        f"training.engine={engine}",
        "training.weight_decay=0.0",  # clients apply weight decay to touched rows only
        "strategy.server_learning_rate=1.0",
    )
    data = ran.setup.data
    central = untrained(ran)
    training = build("training", ran.setup.plan.job.training)
    for round_ in (1, 2, 3):
        loss_here = train_plainly(
            central, data.client(0), training, round_, num_items=data.num_items, seed=1
        )
        assert ran.watcher.losses[round_] == pytest.approx(loss_here, rel=1e-4)
    ours = {name: np.squeeze(value) for name, value in (ran.shared | ran.personal).items()}
    for name, value in central.named_parameters():
        assert_allclose(ours[name], np.squeeze(value.detach().numpy()), rtol=1e-3, atol=1e-5)


def test_the_centralized_preset_trains_one_client(federate: "Federate") -> None:
    ran = federate("federation=centralized", "num_rounds=1")
    assert ran.setup.data.num_clients == 1
    assert len(ran.setup.data.client(0)) == len(ran.setup.data.part(Part.TRAIN).item)


def test_grouping_users_into_silos_changes_the_result(federate: "Federate") -> None:
    """One silo differs from 24 clients, so the equivalence above can fail."""
    one, many = federate("partition=single"), federate("partition=user")
    name = "item_embedding.weight"
    assert not np.allclose(one.shared[name], many.shared[name], rtol=1e-3, atol=1e-5)

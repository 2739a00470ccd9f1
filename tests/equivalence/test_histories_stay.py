"""Models of histories: no history is sent; trainers and hosting do not change the results."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from flwr.common.serde import recorddict_to_proto
from numpy.testing import assert_allclose

from fedrec_flower.data.interactions import Part
from fedrec_flower.models.history import HistoryRecommender

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

MODELS = ["autoencoder", "multvae", "sasrec", "gru4rec", "fedrecon", "lightgcn"]
EVERY_MODEL = pytest.mark.parametrize("model", MODELS)


@EVERY_MODEL
def test_messages_have_shared_parameters_and_no_history(federate: "Federate", model: str) -> None:
    ran = federate(f"model={model}", "federation.num_nodes=24")
    assert isinstance(ran.setup.model, HistoryRecommender)
    assert set(ran.setup.model.personal_names()) == ran.setup.model.user_rows
    history = ran.setup.data.part(Part.TRAIN)
    needles = {
        np.ascontiguousarray(own, kind).tobytes()
        for own in np.split(np.asarray(history.item), history.offsets[1:-1])
        for kind in (np.int32, np.int64, np.float32)
    }
    assert min(map(len, needles)) >= 16
    for message in ran.tap.asked + ran.tap.replies:
        sent = recorddict_to_proto(message.content).SerializeToString()
        assert not [needle for needle in needles if needle in sent]


@EVERY_MODEL
@pytest.mark.parametrize("partition", ["user", "silo_random"])
def test_trainers_and_hosting_give_equal_parameters_and_metrics(
    federate: "Federate", model: str, partition: str
) -> None:
    silos = ("partition=silo_random", "partition.num_clients=4") if "silo" in partition else ()
    chosen = (f"model={model}", "model.init_std=0.5", "evaluation.every=1", *silos)
    one = federate(*chosen)
    for other in (
        federate(*chosen, "training.engine=sequential"),
        federate(*chosen, "federation.num_nodes=3"),
    ):
        for name, value in one.shared.items():
            assert_allclose(other.shared[name], value, rtol=1e-3, atol=1e-4)
        assert_allclose(
            list(other.metric_table().values()), list(one.metric_table().values()), atol=0.01
        )

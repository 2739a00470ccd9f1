"""Models of features: attributes, profiles and the public catalogue are never sent."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from flwr.common.serde import recorddict_to_proto
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.interactions import Part
from fedrec_flower.experiment.composition import compose
from fedrec_flower.models.two_tower import TwoTower
from tests.conftest import PrepareSmall

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

HEADER = 128  # bytes that numpy's file format puts before the values of each array
EVERY_MODEL = pytest.mark.parametrize("model", ["two_tower", "hybrid"])
EVERY_SPLIT = pytest.mark.parametrize("split", ["leave_one_out", "cold_items", "cold_users"])


@EVERY_MODEL
def test_messages_have_no_attributes_profile_or_catalogue(federate: "Federate", model: str) -> None:
    ran = federate(f"model={model}", "federation.num_nodes=24")
    assert isinstance(ran.setup.model, TwoTower)
    data, catalogue = ran.setup.data, ran.setup.model.catalogue
    everyone = data.client(0, data.num_clients)
    known = ran.setup.model.side_information(everyone.attributes, everyone.train, None)[
        "user_features"
    ]
    assert everyone.attributes.any(axis=1).all()
    profiles = known[:, data.num_attributes :]
    # A few flags among zeros may stand anywhere; shares of a history may not.
    rare = [row.tobytes() for row in (*known, *profiles) if np.count_nonzero(row) > 3]
    needles = {*rare, catalogue.tobytes()}
    assert len(needles) > 24
    assert len(ran.tap.replies) >= 24 * 3
    for message in ran.tap.asked + ran.tap.replies:
        sent = recorddict_to_proto(message.content).SerializeToString()
        assert not [needle for needle in needles if needle in sent]
        assert b"_features" not in sent


def test_two_tower_messages_do_not_show_touched_items(
    federate: "Federate",
) -> None:
    ran = federate("model=two_tower", "federation.num_nodes=24")
    assert {name.partition(".")[0] for name in ran.shared} == {"user_tower", "item_tower"}
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    for reply in replies:
        arrays = reply.content.array_records["update"]
        assert arrays["row_weight"].numpy().size == 0
        assert arrays["rows"].numpy().size == 0
    values = sum(value.nbytes for value in ran.shared.values())
    # With the layers, two empty columns are sent: rows and their weights.
    assert ran.outcome.bytes_up == values + HEADER * (len(ran.shared) + 2)


@EVERY_MODEL
@EVERY_SPLIT
def test_trainers_and_hosting_give_equal_parameters_and_metrics(
    federate: "Federate", model: str, split: str
) -> None:
    chosen = (f"model={model}", f"split={split}", "evaluation.every=1", "training.batch_size=null")
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


@EVERY_MODEL
def test_client_without_training_data_sends_no_change_and_is_evaluated(
    federate: "Federate", model: str
) -> None:
    cold = ("split=cold_users", "split.user_fraction=0.5", "evaluation.every=1")
    ran = federate(f"model={model}", *cold, "clients_per_round=1", "num_rounds=8")
    data = ran.setup.data
    trains = np.diff(data.part(Part.TRAIN).offsets) > 0
    tested = np.diff(data.part(Part.TEST).offsets) > 0
    assert_array_equal(trains, ~tested)
    taught = ran.outcome.rounds_participated[trains].sum()
    assert 0 < taught < 8  # some rounds had a stranger, some a user who trains
    assert sum(np.isfinite(loss) for loss in ran.watcher.losses.values()) == taught
    assert all(np.isfinite(value) for value in ran.metric_table().values())


def test_data_without_item_features_are_rejected(prepare_small: PrepareSmall) -> None:
    data = prepare_small()
    assert data.item_features.shape == (30, 0)
    assert data.client(3).attributes.shape == (1, 0)
    facts = {"item_features": data.item_features, "num_attributes": data.num_attributes}
    node = compose(["model=two_tower"])[0]["model"]
    with pytest.raises(ConfigError, match="these data have no genres or years: choose another"):
        build("model", node, num_users=1, task="ranking", **facts)

"""Laws of the two towers: equal features give equal scores, with or without training."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.hybrid import Hybrid
from fedrec_flower.models.two_tower import TwoTower
from tests.helpers.one_round import KNOWN, Round, make

if TYPE_CHECKING:
    from tests.conftest import MakeClient

FEATURES = KNOWN[0]
NUM_ITEMS = len(FEATURES)
NOTHING = Columns(np.zeros(2, np.int64), np.zeros(0, np.int32), None)


def towers(features: NDArray[np.float32], num_attributes: int, **changes: object) -> TwoTower:
    arguments = {
        "num_users": 1,
        "task": "ranking",
        "item_features": features,
        "num_attributes": num_attributes,
        "embedding_dim": 4,
        "hidden_dims": [5],
        "history_dropout": 0.2,
    }
    model = TwoTower(**(arguments | changes))  # type: ignore[arg-type]  # values of several types
    model.load(model.initial(model.shared_names(), np.random.default_rng(0)))
    return model


def scores(model: TwoTower, attributes: list[float], history: Columns) -> NDArray[np.float32]:
    """Scores of one user for every item."""
    model.load(model.side_information(np.array([attributes], np.float32), history, None))
    user_scores: NDArray[np.float32] = model.score_all(torch.tensor([0])).detach().numpy()[0]
    return user_scores


def had(*items: int) -> Columns:
    return Columns(np.array([0, len(items)]), np.array(items, np.int32), None)


@given(st.integers(0, NUM_ITEMS - 1), st.integers(0, NUM_ITEMS - 1))
def test_items_with_equal_features_get_equal_scores(one: int, two: int) -> None:
    features = FEATURES.copy()
    features[two] = features[one]
    user_scores = scores(towers(features, 2), [0.3, 1.0], had(4, 5))
    assert_allclose(user_scores[one], user_scores[two], rtol=1e-6)  # positions in a product differ


def test_an_item_without_interactions_scores_as_a_trained_item_with_equal_features(
    make_client: "MakeClient",
) -> None:
    round_ = Round("two_tower")
    data = make_client([[3, 8, 1]], attributes=[[0.3, 1.0]])
    change = round_.train([data])[0].change
    assert any(moved.any() for moved in change.values())
    features = FEATURES.copy()
    features[20] = features[3]
    model = towers(features, 2)
    model.load({name: round_.shared[name] + moved for name, moved in change.items()})
    user_scores = scores(model, [0.3, 1.0], data.train)
    assert_allclose(user_scores[20], user_scores[3], rtol=1e-6)
    assert len(np.unique(user_scores.round(6))) == NUM_ITEMS - 1


def test_users_with_equal_attributes_and_history_get_equal_scores() -> None:
    model = towers(FEATURES, 2)
    both = Columns(np.array([0, 2, 4]), np.array([4, 9, 9, 4], np.int32), None)
    model.load(model.side_information(np.array([[1.0, 2.0]] * 2, np.float32), both, None))
    user_scores = model.score_all(torch.arange(2)).detach().numpy()
    assert_allclose(user_scores[0], user_scores[1], rtol=1e-6)


def test_attributes_and_history_each_change_the_scores() -> None:
    model = towers(FEATURES, 2)
    unknown = scores(model, [0.0, 0.0], NOTHING)
    for changed in (scores(model, [1.0, 0.0], NOTHING), scores(model, [0.0, 0.0], had(3))):
        assert np.isfinite(changed).all()
        assert (changed != unknown).any()


def test_profile_is_the_mean_of_item_features_and_zero_without_items() -> None:
    history = Columns(np.array([0, 0, 3]), np.array([3, 8, 8], np.int32), None)
    user_attributes = np.array([[1.0], [2.0]], np.float32)
    values = towers(FEATURES, 1).side_information(user_attributes, history, None)
    features = values["user_features"]
    assert_array_equal(features[:, :1], user_attributes)
    assert_array_equal(features[0, 1:], np.zeros(3))
    assert_allclose(features[1, 1:], (FEATURES[3] + 2 * FEATURES[8]) / 3, rtol=1e-6)


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_training_preserves_the_catalogue_and_sends_no_rows(
    make_client: "MakeClient", engine: str
) -> None:
    round_ = Round("two_tower", engine=engine)
    data = make_client([[3, 8, 1]], attributes=[[0.3, 1.0]])
    inputs = (data.attributes, data.train, None)
    assert isinstance(round_.model, TwoTower)
    before = round_.model.side_information(*inputs)["item_features"].copy()
    result = round_.train([data])[0]
    after = round_.model.side_information(*inputs)["item_features"]
    assert_array_equal(after, before)
    assert {name.partition(".")[0] for name in result.change} == {"user_tower", "item_tower"}
    assert len(result.rows) == 0


def test_hybrid_updates_contain_the_touched_rows(
    make_client: "MakeClient",
) -> None:
    data = make_client([[3, 8, 1]], attributes=[[0.3, 1.0]])
    result = Round("hybrid").train([data])[0]
    assert {1, 3, 8} <= set(result.rows.tolist())


def test_hybrid_with_zero_item_vectors_equals_two_tower() -> None:
    hybrid, plain = make("hybrid", 1, "bce"), make("two_tower", 1, "bce")
    assert isinstance(hybrid, Hybrid)
    assert isinstance(plain, TwoTower)
    values = plain.initial(plain.shared_names(), np.random.default_rng(0))
    own = {"item_embedding.weight": np.zeros((NUM_ITEMS, 5), np.float32)}
    plain.load(values)
    hybrid.load(values | own)
    for model in (hybrid, plain):
        assert_array_equal(scores(model, [0.3, 1.0], had(4)), scores(plain, [0.3, 1.0], had(4)))


def test_history_dropout_trains_a_user_without_history(
    make_client: "MakeClient",
) -> None:
    data = make_client([[3, 8, 1]], attributes=[[0.3, 1.0]])
    stranger = towers(FEATURES, 2, history_dropout=0.999)
    side_inputs = stranger.side_information(
        data.attributes, data.train.mask(np.array([False])), None
    )
    assert_array_equal(side_inputs["user_features"], [[np.float32(0.3), 1, 0, 0, 0]])
    remembered = data.train.mask(np.array([True]))
    assert remembered.item.tolist() == data.train.item.tolist()


def test_two_tower_needs_item_features_but_no_user_attributes() -> None:
    silent = scores(towers(FEATURES, 0), [], had(4))
    assert np.isfinite(silent).all()
    with pytest.raises(ConfigError, match="have no genres or years: choose another dataset"):
        towers(FEATURES[:, :0], 2)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"task": "rating"}, "TwoTower ranks and cannot predict ratings: choose task=ranking"),
        ({"embedding_dim": 0}, "must be positive: "),
        ({"hidden_dims": [8, 0]}, "must be positive: "),
        ({"history_dropout": 1.0}, r"history_dropout must be in \[0, 1\): 1.0"),
    ],
)
def test_two_tower_rejects_impossible_settings(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        towers(FEATURES, 2, **change)


def test_attributes_do_not_change_the_clients_draws(make_client: "MakeClient") -> None:
    data = make_client([[3, 8, 1]], attributes=[[0.3, 1.0]])
    other = replace(data, attributes=np.array([[0.9, 0.0]], np.float32))
    one, two = (Round("two_tower").train([client])[0] for client in (data, other))
    assert (one.change["user_tower.0.weight"] != two.change["user_tower.0.weight"]).any()

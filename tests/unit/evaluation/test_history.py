"""The history of the test evaluation: the training part, or training and validation."""

from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Evaluation
from fedrec_flower.evaluation.ranking import RankingEvaluation
from fedrec_flower.evaluation.scoring import ModelScorer
from fedrec_flower.models.base import Recommender
from tests.helpers.one_round import NUM_ITEMS, READERS, TOWERS, Kind, make

if TYPE_CHECKING:
    from tests.conftest import MakeClient

ON_TRAIN = RankingEvaluation(["hr@3", "mrr@10"], 5, 3, 1, None, "mrr@10", "train")
READING_ON = replace(ON_TRAIN, test_history="train_and_validation")
EVERY_KIND = pytest.mark.parametrize("kind", get_args(Kind))


@pytest.fixture
def data(make_client: "MakeClient") -> ClientData:
    """Three users; the last one has no validation item."""
    train = [[4, 1, 8, 0], [9, 2], [6, 3, 7]]
    said = [[0.1, 0.9], [0.3, 0.2], [0.8, 0.5]]
    return make_client(train, [[11], [12, 5], []], [[2, 20], [7], [1]], attributes=said)


def drawn(kind: Kind, data: ClientData) -> Recommender:
    """A model with random parameters."""
    model = make(kind, data.num_users, "bce")
    rng = np.random.default_rng(3)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    model.load({name: rng.normal(size=s).astype(np.float32) for name, s in shapes.items()})
    return model


def evaluated(model: Recommender, data: ClientData, how: RankingEvaluation) -> Evaluation:
    return how.evaluate(ModelScorer(model), UserBatch.of(data), NUM_ITEMS, seed=3)


@EVERY_KIND
def test_test_history_with_validation_equals_training_data_with_validation(
    kind: Kind, data: ClientData, make_client: "MakeClient"
) -> None:
    model = drawn(kind, data)
    result = evaluated(model, data, READING_ON)
    read = [[4, 1, 8, 0, 11], [9, 2, 12, 5], [6, 3, 7]]
    later = make_client(
        read, [[], [], []], [[2, 20], [7], [1]], attributes=data.attributes.tolist()
    )
    expected = evaluated(model, later, ON_TRAIN)
    for name, values in expected.records.items():
        assert_array_equal(result.records[name], values, err_msg=name)
    for name, values in expected.values[Part.TEST].items():
        assert_array_equal(result.values[Part.TEST][name], values, err_msg=name)


@EVERY_KIND
def test_test_history_does_not_change_validation(kind: Kind, data: ClientData) -> None:
    model = drawn(kind, data)
    plain, reading_on = (evaluated(model, data, how) for how in (ON_TRAIN, READING_ON))
    for name, values in plain.values[Part.VALIDATION].items():
        assert_array_equal(reading_on.values[Part.VALIDATION][name], values, err_msg=name)


@pytest.mark.parametrize("kind", [*READERS, *TOWERS])
def test_test_history_changes_the_scores_of_history_models(kind: Kind, data: ClientData) -> None:
    model = drawn(kind, data)
    scored = [
        evaluated(model, data, how).records["per_user_score"] for how in (ON_TRAIN, READING_ON)
    ]
    assert (scored[0][:2] != scored[1][:2]).any(axis=1).all()
    assert_array_equal(scored[0][2], scored[1][2])


def test_test_history_does_not_change_ranks_of_other_models(
    data: ClientData,
) -> None:
    model = drawn("mf", data)
    plain, reading_on = (evaluated(model, data, how) for how in (ON_TRAIN, READING_ON))
    for name, values in plain.records.items():
        assert_array_equal(reading_on.records[name], values, err_msg=name)


def test_ranking_evaluation_rejects_an_unknown_test_history() -> None:
    with pytest.raises(ConfigError, match="test_history=test is unknown; choose from"):
        replace(ON_TRAIN, test_history="test")

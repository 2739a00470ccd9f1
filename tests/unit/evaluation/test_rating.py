"""RMSE and MAE by hand: predictions are clipped to the rating range, and only there."""

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.core.errors import ConfigError, DataError, TrainingError
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Evaluation
from fedrec_flower.evaluation.metric_sums import MetricSums
from fedrec_flower.evaluation.rating import RatingEvaluation
from fedrec_flower.evaluation.scoring import ModelScorer
from fedrec_flower.models.mf import MF

if TYPE_CHECKING:
    from tests.conftest import MakeClient

NUM_ITEMS = 6
RATING = RatingEvaluation(
    rating_range=(1.0, 5.0), top_k=2, every=1, num_clients=None, select_by="rmse"
)


def by_item(num_users: int, *scores: float) -> MF:
    """A model that predicts the same for every user: the item's own score."""
    model = MF(num_users, NUM_ITEMS, (1.0, 5.0), "rating", embedding_dim=1, init_std=0.0)
    names = [name for name, _ in model.named_parameters()]
    values = model.initial(names, np.random.default_rng(0))
    values["global_bias"][:] = 0
    values["item_bias.weight"][:, 0] = scores
    model.load(values)
    return model


@pytest.fixture
def client(make_client: "MakeClient") -> ClientData:
    """Two users who rate items 2, 3 and 4 in test."""
    ratings = [[[3.0], [3.0]], [[4.0], [2.0]], [[5.0, 2.0], [1.5]]]
    return make_client([[0], [5]], [[1], [1]], [[2, 3], [4]], ratings=ratings)


PREDICTED = (0.0, 3.0, 9.0, 2.5, -4.0, 0.0)


def evaluate(data: ClientData, how: RatingEvaluation = RATING) -> Evaluation:
    return how.evaluate(
        ModelScorer(by_item(data.num_users, *PREDICTED)), UserBatch.of(data), NUM_ITEMS, seed=0
    )


def rmse(values: Evaluation, part: Part) -> float:
    sums = MetricSums()
    sums.add(values.values[part])
    root, _ = RATING.finish(sums.mean("rmse"), sums.standard_error("rmse"), "rmse")
    return root


def test_rating_errors_use_clipped_predictions(client: ClientData) -> None:
    result = evaluate(client)
    # 9 is clipped to 5, -4 to 1.
    errors = [5 - 5.0, 2.5 - 2.0, 1 - 1.5]
    assert result.values[Part.TEST]["rmse"].tolist() == [error**2 for error in errors]
    assert result.values[Part.TEST]["mae"].tolist() == [abs(error) for error in errors]
    assert rmse(result, Part.TEST) == sqrt((0 + 0.5**2 + 0.5**2) / 3)
    assert rmse(result, Part.VALIDATION) == sqrt(((3 - 4.0) ** 2 + (3 - 2.0) ** 2) / 2)


def test_records_have_sums_and_counts_per_user(client: ClientData) -> None:
    records = evaluate(client).records
    assert records["per_user_squared_error"].tolist() == [0.0 + 0.5**2, 0.5**2]
    assert records["per_user_absolute_error"].tolist() == [0.0 + 0.5, 0.5]
    assert records["per_user_num_ratings"].tolist() == [2, 1]


def test_recommendations_are_unseen_items_by_unclipped_score(client: ClientData) -> None:
    records = evaluate(client).records
    assert records["per_user_recommended"].tolist() == [[2, 3], [2, 3]]
    assert records["per_user_score"].tolist() == [[9.0, 2.5], [9.0, 2.5]]


def test_evaluation_without_lists_has_the_same_metrics(client: ClientData) -> None:
    whole = evaluate(client)
    model = by_item(client.num_users, *PREDICTED)
    spared = RATING.evaluate(
        ModelScorer(model), UserBatch.of(client), NUM_ITEMS, seed=0, lists=False
    )
    lists = {"per_user_recommended", "per_user_score"}
    assert whole.records.keys() - spared.records.keys() == lists
    for part, values in spared.values.items():
        for metric, column in values.items():
            assert_array_equal(column, whole.values[part][metric])


def test_standard_error_of_rmse_follows_the_delta_method() -> None:
    rng = np.random.default_rng(0)
    trials = rng.normal(0, 1.3, (4000, 200)) ** 2
    roots = np.sqrt(trials.mean(axis=1))
    errors = [
        RATING.finish(trial.mean(), trial.std(ddof=1) / sqrt(len(trial)), "rmse")[1]
        for trial in trials[:400]
    ]
    assert np.mean(errors) == pytest.approx(roots.std(), rel=0.05)


def test_finish_keeps_mae_and_a_zero_rmse() -> None:
    assert RATING.finish(0.25, 0.1, "mae") == (0.25, 0.1)
    assert RATING.finish(0.0, 0.0, "rmse") == (0.0, 0.0)


def test_evaluation_is_independent_of_the_batch_size(
    client: ClientData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(client)
    monkeypatch.setattr("fedrec_flower.evaluation.scoring._SCORES_PER_BATCH", NUM_ITEMS)
    batched = evaluate(client)
    for name, rows in whole.records.items():
        assert_array_equal(rows, batched.records[name])
    assert_array_equal(whole.values[Part.TEST]["rmse"], batched.values[Part.TEST]["rmse"])


def test_predictions_that_are_not_finite_raise_an_error_before_clipping(
    client: ClientData,
) -> None:
    model = by_item(2, *PREDICTED[:-1], float("inf"))
    with pytest.raises(TrainingError, match="client 0: a score is not finite"):
        RATING.evaluate(ModelScorer(model), UserBatch.of(client), NUM_ITEMS, seed=0)


def test_check_without_ratings_names_the_fix(make_client: "MakeClient") -> None:
    with pytest.raises(DataError, match="set task=ranking"):
        evaluate(make_client([[0]], [[1]], [[2]]))
    with pytest.raises(ConfigError, match="set task=ranking"):
        replace(RATING, rating_range=None).check(NUM_ITEMS)


@pytest.mark.parametrize("impossible", [{"every": 0}, {"top_k": 0}])
def test_rating_evaluation_rejects_impossible_settings(impossible: dict[str, Any]) -> None:
    [name] = impossible
    with pytest.raises(ConfigError, match=rf"evaluation\.{name}"):
        replace(RATING, **impossible).check(NUM_ITEMS)


def test_check_rejects_selection_by_a_metric_that_is_not_computed() -> None:
    with pytest.raises(ConfigError, match=r"select_by=hr@10 is not computed"):
        replace(RATING, select_by="hr@10").check(NUM_ITEMS)


def test_fitted_limits_lists_to_the_catalogue() -> None:
    """A3: a heavy user or a small catalogue leaves sampled metrics out."""
    fitted, said = replace(RATING, top_k=7).fitted(NUM_ITEMS, max_seen_items=2)
    assert (fitted.top_k, len(said)) == (NUM_ITEMS, 1)
    assert RATING.fitted(NUM_ITEMS, max_seen_items=2) == (RATING, [])

"""Laws of the ranking evaluation, on clients small enough to rank by hand."""

import tracemalloc
from dataclasses import replace
from math import log2
from typing import TYPE_CHECKING, Any

import ir_measures
import numpy as np
import pytest
import torch
from ir_measures import RR, nDCG
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from torch import Tensor, nn

from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Evaluation
from fedrec_flower.evaluation.ranking import RankingEvaluation
from fedrec_flower.evaluation.sampled_negatives import draw_negatives
from fedrec_flower.evaluation.scoring import ModelScorer
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.layers import PerUser

if TYPE_CHECKING:
    from tests.conftest import MakeClient

RANKING = RankingEvaluation(
    metrics=["hr@1", "hr@10", "ndcg@10", "mrr@10"],
    num_negatives=5,
    top_k=3,
    every=1,
    num_clients=None,
    select_by="ndcg@10",
    test_history="train",
)


class Table(Recommender):
    """A model with one parameter per pair of user and item."""

    def __init__(self, scores: NDArray[np.float32]) -> None:
        super().__init__()
        self.scores = PerUser(nn.Parameter(torch.from_numpy(scores)))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        return self.scores[users, items]

    def score_all(self, users: Tensor) -> Tensor:
        return self.scores[users]


def table(*rows: list[float]) -> Table:
    return Table(np.array(rows, np.float32))


def noise(num_users: int, num_items: int, seed: int = 2) -> Table:
    rng = np.random.default_rng(seed)
    return Table(rng.permutation(num_users * num_items).reshape(num_users, -1).astype(np.float32))


def evaluate(
    model: Recommender, data: ClientData, num_items: int, how: RankingEvaluation = RANKING
) -> Evaluation:
    return how.evaluate(ModelScorer(model), UserBatch.of(data), num_items, seed=3)


WITHOUT_SAMPLES = replace(RANKING, num_negatives=0)


def test_candidates_exclude_training_items_and_on_test_validation_items(
    make_client: "MakeClient",
) -> None:
    # From best to worst 0, 1, 2, ...: 0 and 2 are in train, 1 is validation, 5 is test.
    model = table([9, 8, 7, 6, 5, 4, 3, 2])
    data = make_client([[0, 2]], [[1]], [[5]])
    result = evaluate(model, data, 8, WITHOUT_SAMPLES)
    assert result.values[Part.VALIDATION]["mrr@10"].tolist() == [1.0]
    # Above 5 stand only 3 and 4.
    assert result.records["per_test_rank_full"].tolist() == [3]
    assert result.values[Part.TEST]["ndcg@10"].tolist() == pytest.approx([1 / log2(3 + 1)])


def test_candidates_on_validation_include_the_test_item(
    make_client: "MakeClient",
) -> None:
    model = table([9, 8, 7, 6])
    result = evaluate(model, make_client([[1]], [[2]], [[0]]), 4, WITHOUT_SAMPLES)
    assert result.values[Part.VALIDATION]["mrr@10"].tolist() == [1 / 2]


def test_metrics_of_constant_scores_are_0(make_client: "MakeClient") -> None:
    data = make_client([[0, 1], [5]], [[2], [6]], [[3], [7]])
    result = evaluate(table([0.5] * 30, [0.5] * 30), data, 30, replace(RANKING, num_negatives=10))
    for part in (Part.VALIDATION, Part.TEST):
        for metric, values in result.values[part].items():
            assert values.tolist() == [0.0, 0.0], metric


def test_perfect_scores_rank_all_held_out_items_first(make_client: "MakeClient") -> None:
    model = table([9, 8, 7, 6, 5, 4])
    data = make_client([[5]], [[]], [[1, 3, 0]])
    how = replace(WITHOUT_SAMPLES, metrics=["ndcg@10", "recall@2", "hr@1"])
    result = evaluate(model, data, 6, how)
    assert result.records["per_test_rank_full"].tolist() == [2, 4, 1]
    gain = 1 / log2(1 + 1) + 1 / log2(2 + 1) + 1 / log2(4 + 1)
    best = 1 / log2(1 + 1) + 1 / log2(2 + 1) + 1 / log2(3 + 1)
    assert result.values[Part.TEST]["ndcg@10"].tolist() == pytest.approx([gain / best])
    assert result.values[Part.TEST]["recall@2"].tolist() == pytest.approx([2 / 3])


def test_evaluation_ignores_a_user_without_held_out_items(make_client: "MakeClient") -> None:
    data = make_client([[0], [1]], [[2], []], [[3], []])
    values = evaluate(noise(2, 12), data, 12).values[Part.TEST]
    for column in values.values():
        assert np.isnan(column).tolist() == [False, True]


@pytest.mark.parametrize("seed", [1, 2])
def test_sampled_ranks_use_the_same_negatives_for_every_model_and_evaluation(
    make_client: "MakeClient", seed: int
) -> None:
    data = make_client([[0], [3]], [[1], [4]], [[2], [5]])
    parts = (data.train, data.validation, data.test)
    negatives = draw_negatives(data.user_codes, parts, 40, RANKING.num_negatives, seed=3)
    model = noise(2, 40, seed)
    scores = model.scores.detach().numpy()
    expected = [
        1 + (scores[user, row] > scores[user, held]).sum()
        for user, row, held in zip((0, 1), negatives, (2, 5), strict=True)
    ]
    result = evaluate(model, data, 40)
    assert result.records["per_test_rank_5neg"].tolist() == expected
    ours = result.values[Part.TEST]["mrr@10_5neg"].tolist()
    assert ours == pytest.approx([1 / rank for rank in expected])


def test_auc_uses_all_candidates(make_client: "MakeClient") -> None:
    model = table([9, 8, 7, 6, 5, 4, 3, 2])
    data = make_client([[0, 2]], [[1]], [[5]])
    result = evaluate(model, data, 8, replace(RANKING, metrics=["auc"], num_negatives=2))
    # Of the six items not in train, validation is the best; of the other five, test is third.
    assert result.values[Part.VALIDATION]["auc"].tolist() == [5 / 5]
    assert result.values[Part.TEST]["auc"].tolist() == [2 / 4]
    [rank] = result.records["per_test_rank_2neg"]
    assert result.values[Part.TEST]["auc_2neg"].tolist() == [(2 - (rank - 1)) / 2]


def test_sampled_protocol_with_too_few_items_names_the_fix(make_client: "MakeClient") -> None:
    data = make_client([[0, 1]], [[2]], [[3]])
    with pytest.raises(ConfigError, match=r"only 4 items left .* asks for 5: lower it"):
        evaluate(noise(1, 8), data, 8)


def test_evaluation_is_independent_of_the_batch_size(
    make_client: "MakeClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    train = [[user, user + 1] for user in range(7)]
    held = [[[user + 2] for user in range(7)], [[user + 3, user + 5] for user in range(7)]]
    data, model = make_client(train, *held), noise(7, 30)
    whole = evaluate(model, data, 30)
    monkeypatch.setattr("fedrec_flower.evaluation.scoring._SCORES_PER_BATCH", 2 * 30)
    batched = evaluate(model, data, 30)
    for part in (Part.VALIDATION, Part.TEST):
        for metric, values in whole.values[part].items():
            assert_array_equal(values, batched.values[part][metric])
    for name, rows in whole.records.items():
        assert_array_equal(rows, batched.records[name])


def test_recommendations_are_unseen_items_best_first(make_client: "MakeClient") -> None:
    model = table([9, 8, 7, 6, 5, 4])
    result = evaluate(model, make_client([[0]], [[2]], [[4]]), 6, WITHOUT_SAMPLES)
    assert result.records["per_user_recommended"].tolist() == [[1, 3, 4]]
    assert result.records["per_user_score"].tolist() == [[8, 6, 5]]


def test_evaluation_without_lists_has_the_same_metrics(make_client: "MakeClient") -> None:
    model, data = noise(2, 40), make_client([[0], [3]], [[1], [4]], [[2, 7], [5]])
    whole = evaluate(model, data, 40)
    spared = RANKING.evaluate(ModelScorer(model), UserBatch.of(data), 40, seed=3, lists=False)
    lists = {"per_user_recommended", "per_user_score"}
    assert whole.records.keys() - spared.records.keys() == lists
    for name, rows in spared.records.items():
        assert_array_equal(rows, whole.records[name])
    for part, values in spared.values.items():
        for metric, column in values.items():
            assert_array_equal(column, whole.values[part][metric])


def test_evaluation_does_not_change_the_model(make_client: "MakeClient") -> None:
    class View(Table):
        def score_all(self, users: Tensor) -> Tensor:
            return self.scores[int(users[0]) : int(users[-1]) + 1]

    model = View(noise(2, 12).scores.detach().numpy())
    before = model.scores.detach().clone()
    evaluate(model, make_client([[0], [3]], [[1], [4]], [[2], [5]]), 12)
    assert torch.equal(model.scores, before)


def test_memory_is_independent_of_the_number_of_users(
    make_client: "MakeClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    num_users, num_items = 400, 3000
    held = [[user] for user in range(num_users)]
    data = make_client([[num_users]] * num_users, held, [[num_users + 1]] * num_users)
    model = noise(num_users, num_items)
    monkeypatch.setattr("fedrec_flower.evaluation.scoring._SCORES_PER_BATCH", 10 * num_items)
    tracemalloc.start()
    evaluate(model, data, num_items)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * num_users * num_items / 4  # a quarter of all scores, in bytes


def test_scores_that_are_not_finite_name_the_client(
    make_client: "MakeClient",
) -> None:
    model = table([float("nan")] * 12)
    with pytest.raises(TrainingError, match="client 4: a score is not finite"):
        evaluate(model, make_client([[0]], [[1]], [[2]], client=4), 12)


def test_ranking_evaluation_equals_ir_measures(make_client: "MakeClient") -> None:
    num_users, num_items = 6, 40
    rng = np.random.default_rng(1)
    items = [rng.permutation(num_items)[:9].tolist() for _ in range(num_users)]
    train, test = (
        [own[:5] for own in items],
        [own[6 : 7 + user % 3] for user, own in enumerate(items)],
    )
    data, model = make_client(train, [[own[5]] for own in items], test), noise(num_users, num_items)
    result = evaluate(model, data, num_items, WITHOUT_SAMPLES)
    scores = model.scores.detach().numpy()
    run = {
        str(user): {
            str(item): float(scores[user, item]) for item in range(num_items) if item not in own[:6]
        }
        for user, own in enumerate(items)
    }
    truth = {str(user): {str(item): 1 for item in own} for user, own in enumerate(test)}
    for measure, metric in ((nDCG @ 10, "ndcg@10"), (RR @ 10, "mrr@10")):
        theirs = {m.query_id: m.value for m in ir_measures.iter_calc([measure], truth, run)}
        expected = [theirs[str(user)] for user in range(num_users)]
        assert_allclose(result.values[Part.TEST][metric], expected, rtol=1e-9)


def test_fitted_removes_the_sampled_protocol_for_a_very_active_user() -> None:
    """A3: one user with nearly the whole catalogue does not make the run impossible."""
    wide = replace(RANKING, num_negatives=99, select_by="ndcg@10")
    fitted, said = wide.fitted(num_items=1000, max_seen_items=950)
    assert (fitted.num_negatives, fitted.metrics) == (0, wide.metrics)
    assert len(said) == 1
    assert "_99neg" in said[0]
    assert "leaves 50 items" in said[0]
    assert wide.fitted(num_items=1000, max_seen_items=901) == (wide, [])


def test_fitted_limits_lists_and_metrics_to_a_small_catalogue() -> None:
    """A3: a heavy user or a small catalogue leaves sampled metrics out."""
    asked = replace(
        RANKING, metrics=["hr@5", "ndcg@10"], select_by="ndcg@10", num_negatives=2, top_k=10
    )
    fitted, said = asked.fitted(num_items=8, max_seen_items=4)
    assert (fitted.metrics, fitted.select_by, fitted.top_k) == (["hr@5"], "hr@5", 8)
    assert len(said) == 3
    with pytest.raises(ConfigError, match="all at a k above the catalogue of 4 items"):
        asked.fitted(num_items=4, max_seen_items=2)


@pytest.mark.parametrize("chosen", ["ndcg@7", "ndcg@10_99neg", "rmse"])
def test_check_rejects_selection_by_a_metric_that_is_not_computed(chosen: str) -> None:
    with pytest.raises(ConfigError, match=rf"select_by={chosen} is not computed; choose from"):
        replace(RANKING, select_by=chosen).check(num_items=50)


@pytest.mark.parametrize("impossible", [{"every": 0}, {"top_k": 0}, {"num_negatives": -1}])
def test_ranking_evaluation_rejects_impossible_settings(impossible: dict[str, Any]) -> None:
    [name] = impossible
    with pytest.raises(ConfigError, match=rf"evaluation\.{name}"):
        replace(RANKING, **impossible).check(num_items=50)

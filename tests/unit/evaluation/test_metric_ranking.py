"""Ranking metrics by hand, against a naive loop and against ir-measures."""

from collections.abc import Callable
from math import log2, nan

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.evaluation.metrics.base import RankingMetric, Ranks
from fedrec_flower.evaluation.metrics.ranking import AUC, MAP, MRR, NDCG, HitRate, Precision, Recall
from fedrec_flower.evaluation.metrics.registry import parse_metric

AT_K: list[Callable[[int], RankingMetric]] = [HitRate, Recall, Precision, NDCG, MRR, MAP]


def ranks_of(*users: tuple[list[int], int]) -> Ranks:
    """Ranks from one (ranks, number of candidates) per user."""
    return Ranks(
        rank=np.array([rank for ranks, _ in users for rank in ranks], dtype=np.int64),
        offsets=np.cumsum([0, *(len(ranks) for ranks, _ in users)]),
        num_candidates=np.array([candidates for _, candidates in users]),
    )


@st.composite
def users(draw: st.DrawFn) -> list[tuple[list[int], int]]:
    """Users with 1 to 15 candidates, any number of which are held out, none included."""
    lengths = draw(st.lists(st.integers(1, 15), min_size=1, max_size=5))
    return [(sorted(draw(st.sets(st.integers(1, length)))), length) for length in lengths]


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (HitRate(4), 1),
        (Recall(4), 2 / 3),
        (Precision(4), 2 / 4),
        (NDCG(4), (1 / log2(2 + 1) + 1 / log2(4 + 1)) / (1 / log2(2) + 1 / log2(3) + 1 / log2(4))),
        (NDCG(2), (1 / log2(2 + 1)) / (1 / log2(2) + 1 / log2(3))),
        (MRR(4), 1 / 2),
        (MRR(1), 0),
        (MAP(4), (1 / 2 + 2 / 4) / 3),
        (MAP(2), (1 / 2) / 2),
        # Of the 3 x 4 pairs, the items at 2, 4 and 6 have 1, 2 and 3 others above them.
        (AUC(), 1 - (1 + 2 + 3) / (3 * 4)),
    ],
)
def test_metrics_equal_values_by_hand(metric: RankingMetric, expected: float) -> None:
    assert metric(ranks_of(([2, 4, 6], 7))).tolist() == pytest.approx([expected])


@pytest.mark.parametrize("metric", [*(make(3) for make in AT_K), AUC()])
def test_metrics_are_nan_for_a_user_without_held_out_items(
    metric: RankingMetric,
) -> None:
    best = ([1, 2, 3], 9)
    values = metric(ranks_of(([], 5), best, ([], 5), ([], 5), best, ([], 5)))
    np.testing.assert_array_equal(values, [nan, 1, nan, nan, 1, nan])


@pytest.mark.parametrize("metric", [*(make(3) for make in AT_K), AUC()])
def test_metrics_of_no_users_are_empty(metric: RankingMetric) -> None:
    assert metric(ranks_of()).tolist() == []


@pytest.mark.parametrize("metric", [*(make(3) for make in AT_K), AUC()])
def test_metrics_are_0_for_held_out_items_at_the_end(metric: RankingMetric) -> None:
    assert metric(ranks_of(([9, 10], 10))).tolist() == [0]


def test_auc_without_other_candidates_is_nan() -> None:
    np.testing.assert_array_equal(AUC()(ranks_of(([1, 2], 2))), [nan])


def naive(kind: str, ranks: list[int], num_candidates: int, k: int) -> float:
    """One user's metric, place by place down the list."""
    relevant = [place in ranks for place in range(1, num_candidates + 1)]
    top, total = relevant[:k], sum(relevant)
    if total == 0:
        return nan
    hits = [place for place, hit in enumerate(top, start=1) if hit]
    if kind == "auc":
        pairs = [
            above
            for above, is_held_out in enumerate(relevant)
            for below in range(num_candidates)
            if is_held_out and not relevant[below] and (above < below)
        ]
        return len(pairs) / (total * (num_candidates - total)) if num_candidates > total else nan
    ideal = range(1, min(k, total) + 1)
    return {
        "hr": float(any(top)),
        "recall": sum(top) / total,
        "precision": sum(top) / k,
        "ndcg": sum(1 / log2(p + 1) for p in hits) / sum(1 / log2(p + 1) for p in ideal),
        "mrr": 1 / hits[0] if hits else 0,
        "map": sum(sum(top[:p]) / p for p in hits) / min(k, total),
    }[kind]


@pytest.mark.parametrize("kind", ["hr", "recall", "precision", "ndcg", "mrr", "map", "auc"])
@given(users=users(), k=st.integers(1, 20))
def test_metrics_equal_a_naive_loop(kind: str, users: list[tuple[list[int], int]], k: int) -> None:
    metric = parse_metric(kind if kind == "auc" else f"{kind}@{k}")
    expected = [naive(kind, ranks, num_candidates, k) for ranks, num_candidates in users]
    np.testing.assert_allclose(metric(ranks_of(*users)), expected, atol=1e-12)


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize(
    ("make", "reference"),
    [
        (HitRate, ir_measures.Success),
        (Recall, ir_measures.R),
        (Precision, ir_measures.P),
        (NDCG, ir_measures.nDCG),
        (MRR, ir_measures.RR),
        (MAP, ir_measures.AP),
    ],
)
def test_metrics_equal_ir_measures(
    make: Callable[[int], RankingMetric], reference: ir_measures.Measure, k: int
) -> None:
    rng = np.random.default_rng(0)
    users = [
        (sorted(rng.choice(np.arange(1, 41), size=rng.integers(1, 16), replace=False).tolist()), 40)
        for _ in range(50)
    ]
    judged = [
        ir_measures.Qrel(str(user), str(rank), 1)
        for user, (ranks, _) in enumerate(users)
        for rank in ranks
    ]
    ranked = [
        ir_measures.ScoredDoc(str(user), str(rank), -float(rank))
        for user in range(len(users))
        for rank in range(1, 41)
    ]
    found = {
        int(row.query_id): row.value
        for row in ir_measures.iter_calc([reference @ k], judged, ranked)
    }
    expected = np.array([found[user] for user in range(len(users))])
    if make is MAP:
        # The one definition that differs: trec_eval divides by |T| instead of min(k, |T|).
        num_held_out = np.array([len(ranks) for ranks, _ in users])
        expected = expected * num_held_out / np.minimum(k, num_held_out)
    np.testing.assert_allclose(make(k)(ranks_of(*users)), expected, atol=1e-6)


@pytest.mark.parametrize("metric", [*(make(7) for make in AT_K), AUC()])
def test_parse_metric_finds_a_metric_by_its_name(metric: RankingMetric) -> None:
    assert parse_metric(metric.name) == metric


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("recal@20", r"did you mean recall@20: .* hr@k, recall@k, .*, auc \(k at least 1\)"),
        ("NDCG@10", "did you mean ndcg@10:"),
        ("ndcg", "did you mean ndcg@10:"),
        ("ndcg@-1", "did you mean ndcg@10:"),
        ("ndcg@1.5", "did you mean ndcg@10:"),
        ("auc@", "did you mean auc:"),
        ("zzz", "there is no metric zzz: choose from hr@k"),
        ("hr@0", "hr@0 is impossible: choose a k of at least 1"),
    ],
)
def test_parse_metric_suggests_the_nearest_name(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_metric(name)

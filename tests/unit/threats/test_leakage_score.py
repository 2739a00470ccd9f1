"""Laws of the leakage score: it finds revealed items, and none in noise or zeros."""

import numpy as np
import pytest
from numpy.typing import NDArray

from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import incidence
from fedrec_flower.models.ops.cooccurrence import cooccurrences
from fedrec_flower.threats.leakage_metrics import auc, by_item, inferred_items, leakage_scores

NUM_ITEMS = 40
OWN = np.array([3, 8, 21, 30])
NEGATIVES = np.array([1, 2, 5, 9, 14, 15, 22, 27, 31, 33, 36, 39])
OTHERS = np.setdiff1d(np.arange(NUM_ITEMS), OWN)


def update(direction: list[float]) -> NDArray[np.float64]:
    """Rows of a client's items pulled along a direction, those of negatives pushed away."""
    rows = np.zeros((NUM_ITEMS, len(direction)))
    rows[OWN] = np.outer([1.0, 0.9, 0.8, 0.7], direction)
    rows[NEGATIVES] = -0.5 * np.array(direction)
    return rows


@pytest.mark.parametrize("turned", [1.0, -1.0], ids=["as it is", "turned"])
def test_leakage_score_separates_items_for_both_signs_of_the_update(turned: float) -> None:
    vector = [0.3 * turned, -0.2 * turned, 0.1 * turned]
    read = leakage_scores({"item_embedding.weight": update(vector)}, NUM_ITEMS)
    assert inferred_items(read).tolist() == OWN.tolist()
    for score in read:
        assert auc(score[OWN], score[OTHERS]) == 1.0


def test_leakage_score_takes_the_sign_from_a_bias() -> None:
    rows, bias = np.zeros((NUM_ITEMS, 2)), np.zeros((NUM_ITEMS, 1))
    many = np.setdiff1d(np.arange(NUM_ITEMS), NEGATIVES)
    rows[many], rows[NEGATIVES] = [-1.0, 1.0], [0.8, -0.8]
    bias[many], bias[NEGATIVES] = 0.2, -0.2
    # The vectors alone are read the wrong way round: the rarer side is taken for the liked one.
    alone = {"item_embedding.weight": rows}
    assert inferred_items(leakage_scores(alone, NUM_ITEMS)).tolist() == NEGATIVES.tolist()
    both = alone | {"item_bias.weight": bias}
    assert inferred_items(leakage_scores(both, NUM_ITEMS)).tolist() == many.tolist()


def test_leakage_score_ranks_untouched_rows_after_own_items() -> None:
    read = leakage_scores({"table": update([1.0, 2.0])}, NUM_ITEMS)[1]
    untouched = np.setdiff1d(OTHERS, NEGATIVES)
    assert read[OWN].min() > read[untouched].max()
    assert read[NEGATIVES] == pytest.approx(0.0)
    assert (read[untouched] == 0).all()


def test_leakage_score_does_not_depend_on_scale() -> None:
    small, large = (leakage_scores({"t": update([1.0, 2.0]) * k}, NUM_ITEMS) for k in (1e-3, 1e3))
    np.testing.assert_allclose(small * 1e6, large, atol=1e-9)


def test_leakage_score_of_noise_has_an_auc_of_one_half() -> None:
    rng = np.random.default_rng(6)
    areas = []
    for _ in range(200):
        drawn = {"t": rng.normal(size=(NUM_ITEMS, 5)), "b": rng.normal(size=(NUM_ITEMS, 1))}
        score = leakage_scores(drawn, NUM_ITEMS)[0]
        areas.append(auc(score[OWN], score[OTHERS]))
    assert np.mean(areas) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("sent", [{}, {"dense": np.ones((7, 3))}, {"t": np.zeros((NUM_ITEMS, 2))}])
def test_leakage_score_of_zeros_infers_no_item(sent: dict[str, NDArray[np.float64]]) -> None:
    read = leakage_scores(sent, NUM_ITEMS)
    assert not read.any()
    assert not len(inferred_items(read))


def test_leakage_score_uses_the_diagonal_of_item_pairs() -> None:
    history = Columns(np.array([0, len(OWN)]), OWN.astype(np.int32), None)
    pairs = cooccurrences(incidence(history, NUM_ITEMS))
    (counts,) = by_item({"cooccurrences": pairs, "num_users": np.ones(1)}, NUM_ITEMS)
    assert np.flatnonzero(counts[:, 0]).tolist() == OWN.tolist()

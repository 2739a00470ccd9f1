"""Metrics beyond accuracy: coverage, exposure, novelty and diversity of recommended lists.

All functions take a recommendation matrix, int (num_lists, k), of item codes, best first, one row
per user with recommendations; lists shorter than k are padded with -1. Per-list metrics are
averaged over the lists that have a value; NaN if no list has one.
"""

import numpy as np
from numpy.typing import NDArray

Recommendations = NDArray[np.integer]

_LISTS_PER_BATCH = 4096  # limits the memory of their k x k similarities


def beyond_accuracy(
    recommendations: Recommendations,
    popularity: NDArray[np.integer],
    num_users: int,
    genres: NDArray[np.bool_] | None,
) -> dict[str, float]:
    """Compute all metrics of this module.

    Args:
        recommendations: int (num_lists, k), item codes in [0, num_items), padded with -1.
        popularity: int (num_items,), training interactions of each item.
        num_users: number of users those interactions come from.
        genres: bool (num_items, num_genres), the genres of each item; None if unknown.

    Returns:
        coverage@k, gini@k, novelty@k (bits), arp@k (interactions) and, with genres, ild@k.
    """
    k = recommendations.shape[1]
    values = {
        f"coverage@{k}": coverage(recommendations, len(popularity)),
        f"gini@{k}": gini(recommendations, len(popularity)),
        f"novelty@{k}": novelty(recommendations, popularity, num_users),
        f"arp@{k}": average_popularity(recommendations, popularity),
    }
    if genres is not None:
        values[f"ild@{k}"] = intra_list_diversity(recommendations, genres)
    return values


def coverage(recommendations: Recommendations, num_items: int) -> float:
    """Return the share of the catalogue that is recommended to at least one user, in [0, 1].

    Source: Ge, Delgado-Battenfeld and Jannach 2010, "Beyond accuracy: evaluating recommender
    systems by coverage and serendipity" (catalogue coverage).
    """
    return np.count_nonzero(_exposure(recommendations, num_items)) / num_items


def gini(recommendations: Recommendations, num_items: int) -> float:
    """Return the Gini index of exposure over the catalogue: 0 if equal, 1 for a single item.

    Source: Shani and Gunawardana 2011, "Evaluating recommendation systems", section 8.3.3.
    NaN for no recommendation or a catalogue of one item.
    """
    ascending = np.sort(_exposure(recommendations, num_items))
    scale = (num_items - 1) * int(ascending.sum())
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(weights @ ascending) / scale if scale else float("nan")


def novelty(
    recommendations: Recommendations, popularity: NDArray[np.integer], num_users: int
) -> float:
    """Return the mean of -log2(popularity / num_users) over recommended items, in bits.

    An item without training interactions counts as an item with one, so that its value is finite.

    Source: Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender
    systems" (surprisal).
    """
    return _mean_over_lists(recommendations, -np.log2(np.maximum(popularity, 1) / num_users))


def average_popularity(recommendations: Recommendations, popularity: NDArray[np.integer]) -> float:
    """Return the mean number of training interactions of recommended items (ARP).

    Source: Yin et al. 2012, "Challenging the long tail recommendation"; Abdollahpouri, Burke and
    Mobasher 2019, "Managing popularity bias in recommender systems with personalized re-ranking".
    """
    return _mean_over_lists(recommendations, popularity.astype(np.float64))


def intra_list_diversity(recommendations: Recommendations, genres: NDArray[np.bool_]) -> float:
    """Return 1 minus the mean Jaccard similarity of genres over the pairs of each list, in [0, 1].

    Two items without any genre have similarity 1. Lists of fewer than two items have no value.

    Source: Ziegler et al. 2005, "Improving recommendation lists through topic diversification"
    (intra-list similarity); Jaccard as in Vargas and Castells 2011, "Rank and relevance in novelty
    and diversity metrics for recommender systems" (a distance of the item features).
    """
    starts = range(0, len(recommendations), _LISTS_PER_BATCH)
    chunks = [
        _diversities(recommendations[start : start + _LISTS_PER_BATCH], genres) for start in starts
    ]
    return _mean(np.concatenate([np.array([]), *chunks]))


def _diversities(
    recommendations: Recommendations, genres: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the diversity of each list with at least two items, float64 (at most num_lists,)."""
    listed = recommendations >= 0
    sets = genres[recommendations].astype(np.float32)  # (num_lists, k, num_genres)
    common = sets @ sets.transpose(0, 2, 1)  # (num_lists, k, k)
    size = sets.sum(axis=2)
    either = size[:, :, np.newaxis] + size[:, np.newaxis, :] - common
    similarity = np.where(either > 0, common / np.maximum(either, 1), 1)
    above_diagonal = np.triu(np.ones(common.shape[1:], dtype=np.bool_), k=1)
    is_pair = listed[:, :, np.newaxis] & listed[:, np.newaxis, :] & above_diagonal
    num_pairs = is_pair.sum(axis=(1, 2))
    sums = np.where(is_pair, similarity, 0).sum(axis=(1, 2), dtype=np.float64)
    has_pair = num_pairs > 0
    diversities: NDArray[np.float64] = 1 - sums[has_pair] / num_pairs[has_pair]
    return diversities


def _exposure(recommendations: Recommendations, num_items: int) -> NDArray[np.int64]:
    """Return how often each item is recommended, int64 (num_items,)."""
    return np.bincount(recommendations[recommendations >= 0], minlength=num_items)


def _mean_over_lists(recommendations: Recommendations, values: NDArray[np.float64]) -> float:
    """Return the mean over lists of the mean of `values` (num_items,) over each list's items."""
    listed = recommendations >= 0
    sums = np.where(listed, values[recommendations], 0).sum(axis=1)
    lengths = listed.sum(axis=1)
    return _mean(sums[lengths > 0] / lengths[lengths > 0])


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean of `values`; NaN, without a warning, for no values."""
    return float(values.mean()) if len(values) else float("nan")

"""What recommendation lists are like, apart from being right: broad, fair, novel, diverse.

All take a recommendation matrix, int (num_lists, k), of item codes, best first, one row per user
that was served; lists shorter than k are padded with -1. Per-list metrics are averaged over the
lists that have a value, each once; NaN if none has.
"""

import numpy as np
from numpy.typing import NDArray

Recommendations = NDArray[np.integer]

_CHUNK = 4096  # lists in memory at once, as k x k similarities


def beyond_accuracy(
    recommendations: Recommendations,
    popularity: NDArray[np.integer],
    num_users: int,
    genres: NDArray[np.bool_] | None,
) -> dict[str, float]:
    """All metrics of this module.

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
    """Share of the catalogue that is recommended to anyone, in [0, 1].

    Source: Ge, Delgado-Battenfeld and Jannach 2010, "Beyond accuracy: evaluating recommender
    systems by coverage and serendipity" (catalogue coverage).
    """
    return np.count_nonzero(_exposure(recommendations, num_items)) / num_items


def gini(recommendations: Recommendations, num_items: int) -> float:
    """Inequality of exposure over the whole catalogue: 0 for all alike, 1 for one item only.

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
    """Mean self-information of the recommended items, -log2(popularity / num_users), in bits.

    An item without training interactions counts as one with a single one: as novel as the data
    can tell, and finite.

    Source: Zhou et al. 2010, "Solving the apparent diversity-accuracy dilemma of recommender
    systems" (surprisal).
    """
    return _mean_over_lists(recommendations, -np.log2(np.maximum(popularity, 1) / num_users))


def average_popularity(recommendations: Recommendations, popularity: NDArray[np.integer]) -> float:
    """Average recommendation popularity (ARP): mean training interactions of recommended items.

    Source: Yin et al. 2012, "Challenging the long tail recommendation"; Abdollahpouri, Burke and
    Mobasher 2019, "Managing popularity bias in recommender systems with personalized re-ranking".
    """
    return _mean_over_lists(recommendations, popularity.astype(np.float64))


def intra_list_diversity(recommendations: Recommendations, genres: NDArray[np.bool_]) -> float:
    """1 minus the mean Jaccard similarity of genres over the pairs of each list, in [0, 1].

    Two items without any genre count as alike. Lists of fewer than two items have no value.

    Source: Ziegler et al. 2005, "Improving recommendation lists through topic diversification"
    (intra-list similarity); Jaccard as in Vargas and Castells 2011, "Rank and relevance in novelty
    and diversity metrics for recommender systems" (a distance of the item features).
    """
    starts = range(0, len(recommendations), _CHUNK)
    chunks = [_diversities(recommendations[start : start + _CHUNK], genres) for start in starts]
    return _mean(np.concatenate([np.array([]), *chunks]))


def _diversities(
    recommendations: Recommendations, genres: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The diversity of each list that has one, float64 (at most num_lists,)."""
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
    """How often each item is recommended, int64 (num_items,)."""
    return np.bincount(recommendations[recommendations >= 0], minlength=num_items)


def _mean_over_lists(recommendations: Recommendations, values: NDArray[np.float64]) -> float:
    """Mean over the lists of the mean of `values` (num_items,) over each list's items."""
    listed = recommendations >= 0
    sums = np.where(listed, values[recommendations], 0).sum(axis=1)
    lengths = listed.sum(axis=1)
    return _mean(sums[lengths > 0] / lengths[lengths > 0])


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of `values`, NaN (without a warning) if there are none."""
    return float(values.mean()) if len(values) else float("nan")

"""The law behind the synthetic data: who is active, what items are like, what users think."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.datasets.sampling import Counts, Floats, Laws

_GENRE_SHARE = 0.25  # an item belongs to each genre that makes up this share of it


def activity(
    rng: np.random.Generator, num_users: int, total: int, least: int, most: int, sigma: float
) -> Counts:
    """How many interactions each user has.

    Args:
        rng: the only source of randomness.
        num_users: number of users.
        total: interactions of all users together.
        least: interactions of every user, before the log-normal share of the rest.
        most: what no user exceeds; at least total / num_users.
        sigma: standard deviation of the log of the share.

    Returns:
        int64 (num_users,), in [least, most], summing to total.
    """
    weights = np.exp(sigma * rng.standard_normal(num_users))
    shares = _capped_shares(weights, total - num_users * least, most - least)
    # Rounding the running sum, not each share, keeps the total.
    return least + np.diff(np.rint(np.cumsum(shares)), prepend=0.0).astype(np.int64)


def _capped_shares(weights: Floats, total: int, cap: int) -> Floats:
    """Split a total in proportion to weights (n,), what exceeds the cap going to the others."""
    capped = np.zeros(len(weights), np.bool_)
    while not capped.all():
        rate = (total - cap * capped.sum()) / weights[~capped].sum()
        over = ~capped & (weights * rate > cap)
        if not over.any():
            return np.where(capped, cap, weights * rate)
        capped |= over
    return np.full(len(weights), float(cap))


def genre_names(num_factors: int) -> list[str]:
    """One name per taste; sorted, they keep their order."""
    digits = len(str(num_factors - 1))
    return [f"genre-{factor:0{digits}}" for factor in range(num_factors)]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What the items are like.

    Attributes:
        tastes: one law over the items per taste.
        directions: float32 (num_items, num_factors), unit vectors: what each item is made of.
        quality: float32 (num_items,), how good it is to anybody, in standard deviations.
        genres: one text per item, "|" between genres.
    """

    tastes: Laws
    directions: NDArray[np.float32]
    quality: NDArray[np.float32]
    genres: list[str]

    @classmethod
    def of(
        cls,
        rng: np.random.Generator,
        num_items: int,
        num_factors: int,
        concentration: float,
        exponent: float,
    ) -> Self:
        """Items whose popularity, in random order, falls as rank to the power of -exponent."""
        popularity = (1.0 + rng.permutation(num_items)) ** -exponent
        shares = rng.dirichlet(np.full(num_factors, concentration), num_items)
        quality = rng.standard_normal(num_items, np.float32)
        # A taste that no item serves would have no law: give it all items, faintly.
        tastes = Laws.of((popularity[:, np.newaxis] * (shares + 1e-9)).T)
        return cls(tastes, unit(shares), quality, _genres(shares))

    def ratings(
        self,
        rng: np.random.Generator,
        directions: NDArray[np.float32],
        user: Counts,
        item: Counts,
    ) -> NDArray[np.float32]:
        """What users give items, in whole stars from 1 to 5.

        Args:
            rng: the only source of randomness.
            directions: (num_users, num_factors), unit vectors: what each user likes.
            user: (n,), rows of directions.
            item: (n,), items.

        Returns:
            float32 (n,): more the better user and item agree, plus what the item is to anybody,
            plus the user's leniency, plus noise.
        """
        agreement = np.einsum("ij,ij->i", directions[user], self.directions[item])
        leniency = rng.standard_normal(len(directions), np.float32)
        noise = rng.standard_normal(len(user), np.float32)
        stars = 2.7 + 2 * agreement + 0.5 * self.quality[item] + 0.4 * leniency[user] + 0.7 * noise
        rounded: NDArray[np.float32] = np.clip(np.rint(stars), 1, 5).astype(np.float32)
        return rounded

    def table(self) -> pd.DataFrame:
        """One row per item: title and genres."""
        titles = [f"Item {number}" for number in range(len(self.genres))]
        return pd.DataFrame({"title": titles, "genres": self.genres})


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Non-zero vectors (n, num_factors) scaled to length one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
    return scaled


def _genres(shares: Floats) -> list[str]:
    names = genre_names(shares.shape[1])
    strongest = shares == shares.max(axis=1, keepdims=True)
    items, factors = np.nonzero(strongest | (shares >= _GENRE_SHARE))
    per_item = np.split(factors, np.flatnonzero(np.diff(items)) + 1)
    return ["|".join(names[factor] for factor in of_one) for of_one in per_item]

"""Synthetic interactions of any size from a known distribution, for tests and work at scale.

Every user is a mixture of a few factors ("tastes"). Every factor is a popularity-skewed
distribution over the items. A user's items are distinct draws from the mixture. Many users are
drawn at once.

Source: Hofmann 2004, "Latent semantic models for collaborative filtering", ACM TOIS 22.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Interactions
from fedrec_flower.data.sources.base import Fingerprint, cache_root

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Users who lack items after so many rounds need a large share of the catalogue. For them,
# drawing from all items at once is cheaper than repeated draws.
_ROUNDS = 12
_CELLS = 4_000_000  # users times items per block, 32 MB an array


@dataclass(frozen=True, slots=True)
class Categoricals:
    """Categorical distributions over the same columns, one per row.

    Attributes:
        weights: float64 (num_laws, num_columns), rows sum to one.
        edges: float64 (num_laws * num_columns,), ascending. Column c of row r ends at r plus the
            cumulated weight of columns 0 to c.
    """

    weights: Floats
    edges: Floats

    @classmethod
    def of(cls, weights: Floats) -> "Categoricals":
        """Normalise weights (num_laws, num_columns); each row has a positive one."""
        cumulated = weights.cumsum(axis=1)
        total = cumulated[:, -1:]
        rows = np.arange(len(weights))[:, np.newaxis]
        return cls(weights / total, (cumulated / total + rows).ravel())

    def draw(self, rng: np.random.Generator, rows: Counts) -> Counts:
        """Draw one column for each entry of rows (n,), by that row's distribution; int64 (n,)."""
        columns = self.weights.shape[1]
        found = np.searchsorted(self.edges, rows + rng.random(len(rows)), side="right")
        # The sum above may round up to the next row.
        drawn: Counts = np.minimum(found - rows * columns, columns - 1)
        return drawn


def distinct_items(
    rng: np.random.Generator, sizes: Counts, mixtures: Categoricals, tastes: Categoricals
) -> tuple[Counts, Counts]:
    """Draw distinct items for every user, until each user has the requested number.

    Args:
        rng: the only source of randomness.
        sizes: (num_users,), number of items of each user, at most the number of items.
        mixtures: one distribution over the factors per user.
        tastes: one distribution over the items per factor.

    Returns:
        Users and items, int64 (sizes.sum(),) each, ascending by user, then item.
    """
    num_items = tastes.weights.shape[1]
    pairs = np.empty(0, np.int64)  # user * num_items + item, ascending
    lacking = sizes.copy()
    for _ in range(_ROUNDS):
        if not lacking.any():
            break
        users = np.repeat(np.arange(len(sizes)), lacking)
        items = tastes.draw(rng, mixtures.draw(rng, users))
        drawn = np.unique(users * num_items + items)
        drawn = drawn[~_contains(pairs, drawn)]
        # No more than the lacking number is drawn, so no draw has to be removed afterwards.
        lacking -= np.bincount(drawn // num_items, minlength=len(sizes))
        pairs = _merged(pairs, drawn)
    if lacking.any():
        pairs = _merged(pairs, _rest(rng, lacking, pairs, mixtures.weights, tastes.weights))
    return np.divmod(pairs, num_items)


def _contains(ascending: Counts, values: Counts) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    found = np.searchsorted(ascending, values)
    held: NDArray[np.bool_] = ascending[np.minimum(found, len(ascending) - 1)] == values
    return held


def _merged(one: Counts, other: Counts) -> Counts:
    # The stable sort merges two ascending runs in one pass.
    return np.sort(np.concatenate((one, other)), kind="stable")


def _rest(
    rng: np.random.Generator, lacking: Counts, pairs: Counts, mixtures: Floats, tastes: Floats
) -> Counts:
    """Draw the lacking pairs by exponential clocks over all other items; ascending.

    Source: Efraimidis & Spirakis 2006, Weighted random sampling with a reservoir.
    """
    num_items = tastes.shape[1]
    users = np.flatnonzero(lacking)
    found = []
    for block in np.array_split(users, -(-len(users) * num_items // _CELLS)):
        rates = np.maximum(mixtures[block] @ tastes, 1e-15)  # items without weight come last
        clocks = rng.standard_exponential(rates.shape) / rates
        first, last = np.searchsorted(pairs, (block[0] * num_items, (block[-1] + 1) * num_items))
        held_by, held = np.divmod(pairs[first:last], num_items)
        here = np.isin(held_by, block)
        clocks[np.searchsorted(block, held_by[here]), held[here]] = np.inf
        order = np.argsort(clocks, axis=1)
        wanted = np.arange(num_items) < lacking[block, np.newaxis]
        rows = np.broadcast_to(block[:, np.newaxis], order.shape)
        found.append(rows[wanted] * num_items + order[wanted])
    return np.sort(np.concatenate(found))


_GENRE_SHARE = 0.25  # an item belongs to each genre with at least this share


def activity(
    rng: np.random.Generator, num_users: int, total: int, least: int, most: int, sigma: float
) -> Counts:
    """Draw the number of interactions of each user.

    Args:
        rng: the only source of randomness.
        num_users: number of users.
        total: interactions of all users together.
        least: minimum of every user, before the log-normal share of the rest.
        most: maximum of every user; at least total / num_users.
        sigma: standard deviation of the log of the share.

    Returns:
        int64 (num_users,), in [least, most], summing to total.
    """
    weights = np.exp(sigma * rng.standard_normal(num_users))
    shares = _capped_shares(weights, total - num_users * least, most - least)
    # Rounding the cumulated sum instead of each share keeps the total.
    return least + np.diff(np.rint(np.cumsum(shares)), prepend=0.0).astype(np.int64)


def _capped_shares(weights: Floats, total: int, cap: int) -> Floats:
    """Split a total in proportion to weights (n,); the excess over the cap goes to the others."""
    capped = np.zeros(len(weights), np.bool_)
    while not capped.all():
        rate = (total - cap * capped.sum()) / weights[~capped].sum()
        over = ~capped & (weights * rate > cap)
        if not over.any():
            return np.where(capped, cap, weights * rate)
        capped |= over
    return np.full(len(weights), float(cap))


def genre_names(num_factors: int) -> list[str]:
    """Return one name per factor; their sorted order is the order of the factors."""
    digits = len(str(num_factors - 1))
    return [f"genre-{factor:0{digits}}" for factor in range(num_factors)]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Properties of the items.

    Attributes:
        tastes: one distribution over the items per factor.
        directions: float32 (num_items, num_factors), unit vectors: factors of each item.
        quality: float32 (num_items,), part of the rating that is common to all users, standardised.
        genres: genres of each item, separated by "|".
    """

    tastes: Categoricals
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
        """Draw items. The popularity falls as rank ** -exponent, in random order of the items."""
        popularity = (1.0 + rng.permutation(num_items)) ** -exponent
        shares = rng.dirichlet(np.full(num_factors, concentration), num_items)
        quality = rng.standard_normal(num_items, np.float32)
        # 1e-9: a factor without items would have no distribution.
        tastes = Categoricals.of((popularity[:, np.newaxis] * (shares + 1e-9)).T)
        return cls(tastes, unit(shares), quality, _genres(shares))

    def ratings(
        self,
        rng: np.random.Generator,
        directions: NDArray[np.float32],
        user: Counts,
        item: Counts,
    ) -> NDArray[np.float32]:
        """Draw ratings in whole stars from 1 to 5.

        Args:
            rng: the only source of randomness.
            directions: (num_users, num_factors), unit vectors: factors of each user.
            user: (n,), rows of directions.
            item: (n,), items.

        Returns:
            float32 (n,): agreement of user and item, plus the item's quality, plus the user's
            leniency, plus noise.
        """
        agreement = np.einsum("ij,ij->i", directions[user], self.directions[item])
        leniency = rng.standard_normal(len(directions), np.float32)
        noise = rng.standard_normal(len(user), np.float32)
        stars = 2.7 + 2 * agreement + 0.5 * self.quality[item] + 0.4 * leniency[user] + 0.7 * noise
        rounded: NDArray[np.float32] = np.clip(np.rint(stars), 1, 5).astype(np.float32)
        return rounded

    def table(self) -> pd.DataFrame:
        """Return one row per item: title and genres."""
        titles = [f"Item {number}" for number in range(len(self.genres))]
        return pd.DataFrame({"title": titles, "genres": self.genres})


def unit(vectors: Floats) -> NDArray[np.float32]:
    """Scale non-zero vectors (n, num_factors) to length one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = (vectors / lengths).astype(np.float32)
    return scaled


def _genres(shares: Floats) -> list[str]:
    names = genre_names(shares.shape[1])
    strongest = shares == shares.max(axis=1, keepdims=True)
    items, factors = np.nonzero(strongest | (shares >= _GENRE_SHARE))
    per_item = np.split(factors, np.flatnonzero(np.diff(items)) + 1)
    return ["|".join(names[factor] for factor in of_one) for of_one in per_item]


_ROWS_PER_CHUNK = 2_000_000  # intermediate arrays of some 500 MB
_USERS_PER_CHUNK = 50_000

_FIRST_SECOND = 1_500_000_000  # July 2017
_JOINING = 2 * 365 * 86_400  # seconds in which users join
_STAYING = 90 * 86_400  # seconds in which all interactions of a user happen

_MOST_CODES = 2**31 - 1  # int32
_RANGES = {
    "num_users": (1, _MOST_CODES),
    "num_items": (2, _MOST_CODES),
    "min_per_user": (1, _MOST_CODES),
    "num_factors": (1, 1000),
    "factor_concentration": (1e-3, 1e6),
    "popularity_exponent": (0, 10),
    "activity_sigma": (0, 10),
    "seed": (0, 2**63),
}


@dataclass(frozen=True, slots=True)
class Synthetic:
    """Interactions of synthetic users. Equal fields give equal data.

    Users have a `group`, their strongest factor. Items have a `title` and `genres`, their
    factors. Ratings are 1 to 5, higher where user and item agree. No user has more than half of
    the catalogue. Some items of a large catalogue may have no interaction.

    Attributes:
        name: name of the data in tables and figures.
        num_users: number of users.
        num_items: size of the catalogue.
        num_interactions: number of interactions, all users together.
        min_per_user: interactions of the least active user.
        num_factors: number of factors, and of genres.
        factor_concentration: concentration of the Dirichlet distribution of a user's factors and
            an item's genres. A lower value gives fewer factors each and a stronger signal.
        popularity_exponent: exponent of Zipf's law over the items; 0: all are equally popular.
        activity_sigma: standard deviation of the log of a user's activity; 0: all are equal.
        seed: seed of the data; the experiment's seed does not change them.
        cache_dir: folder for prepared data; None is the user's cache folder.
    """

    name: str
    num_users: int
    num_items: int
    num_interactions: int
    min_per_user: int
    num_factors: int
    factor_concentration: float
    popularity_exponent: float
    activity_sigma: float
    seed: int
    cache_dir: str | None

    def __post_init__(self) -> None:
        for field, (low, high) in _RANGES.items():
            if not low <= (value := getattr(self, field)) <= high:
                raise ConfigError(f"dataset.{field}={value} must lie between {low} and {high}")
        least, most = (self.num_users * x for x in (self.min_per_user, self.num_items // 2))
        if not least <= self.num_interactions <= most:
            raise ConfigError(
                f"dataset.num_interactions={self.num_interactions} must lie between {least} "
                f"(num_users times min_per_user) and {most} (half of the catalogue per user)"
            )

    @property
    def lists_items(self) -> bool:
        """Whether the catalogue is independent of the interactions: its size is configured."""
        return True

    @property
    def cache_path(self) -> Path:
        """The folder for prepared data; it need not exist yet."""
        return cache_root(self.cache_dir)

    def fingerprint(self) -> Fingerprint:
        """Return the values that determine the result of `load`."""
        fields = asdict(self)
        del fields["cache_dir"]
        return {"dataset": "Synthetic", **fields}

    def load(self) -> Interactions:
        """Generate the data in chunks of users. Rows ascend by user, then item."""
        catalogue = self._catalogue()
        sizes = self._sizes()
        ends = np.cumsum(sizes)
        user = np.repeat(np.arange(self.num_users, dtype=np.int32), sizes)
        item = np.empty(len(user), np.int32)
        rating = np.empty(len(user), np.float32)
        timestamp = np.empty(len(user), np.int64)
        group = np.empty(self.num_users, np.int64)
        mean_size = len(user) // self.num_users
        step = min(_USERS_PER_CHUNK, max(1, _ROWS_PER_CHUNK // mean_size))
        for start in range(0, self.num_users, step):
            users = slice(start, min(start + step, self.num_users))
            rows = slice(ends[start] - sizes[start], ends[users.stop - 1])
            group[users], item[rows], rating[rows], timestamp[rows] = self._chunk(
                catalogue, sizes[users], generator(self.seed, "synthetic-users", client=start)
            )
        names = np.array(genre_names(self.num_factors), dtype=object)
        return Interactions(
            user,
            item,
            rating,
            timestamp,
            np.arange(self.num_users),
            np.arange(self.num_items),
            pd.DataFrame({"group": names[group]}),
            catalogue.table(),
            self.name,
        )

    def _catalogue(self) -> Catalogue:
        return Catalogue.of(
            generator(self.seed, "synthetic-items"),
            self.num_items,
            self.num_factors,
            self.factor_concentration,
            self.popularity_exponent,
        )

    def _sizes(self) -> Counts:
        rng = generator(self.seed, "synthetic-activity")
        most = self.num_items // 2
        total, least = self.num_interactions, self.min_per_user
        return activity(rng, self.num_users, total, least, most, self.activity_sigma)

    def _chunk(
        self, catalogue: Catalogue, sizes: Counts, rng: np.random.Generator
    ) -> tuple[Counts, Counts, NDArray[np.float32], Counts]:
        """Draw some users: their strongest factor (len(sizes),), items, ratings and times."""
        law = np.full(self.num_factors, self.factor_concentration)
        mixtures = rng.dirichlet(law, len(sizes))
        user, item = distinct_items(rng, sizes, Categoricals.of(mixtures), catalogue.tastes)
        rating = catalogue.ratings(rng, unit(mixtures), user, item)
        joined = rng.integers(_FIRST_SECOND, _FIRST_SECOND + _JOINING, len(sizes))
        timestamp = joined[user] + rng.integers(0, _STAYING, len(user))
        return mixtures.argmax(axis=1), item, rating, timestamp

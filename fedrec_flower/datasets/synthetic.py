"""Interactions drawn from a known law, of any size: for tests and for work at scale.

Every user mixes a few tastes, every taste is a popularity-skewed law over the items, and a user's
items are distinct draws from the mixture: latent factors in their probabilistic form.
Source of the form: Hofmann 2004, Latent semantic models for collaborative filtering, ACM TOIS 22.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.datasets.base import Fingerprint, cache_root
from fedrec_flower.datasets.sampling import Counts, Laws, distinct_items
from fedrec_flower.datasets.synthetic_law import Catalogue, activity, genre_names, unit
from fedrec_flower.errors import ConfigError
from fedrec_flower.interactions import Interactions
from fedrec_flower.seeding import generator

_ROWS_PER_CHUNK = 2_000_000  # intermediate arrays of some 500 MB
_USERS_PER_CHUNK = 50_000

_FIRST_SECOND = 1_500_000_000  # July 2017
_JOINING = 2 * 365 * 86_400  # seconds within which users join
_STAYING = 90 * 86_400  # seconds within which a user meets all their items

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
    """Interactions of made-up users: the same fields give the same data.

    Users have a `group`, their strongest taste; items have a `title` and `genres`, the tastes
    they are to. Ratings are 1 to 5, higher where user and item agree. No user meets more than
    half of the catalogue. Some items of a large catalogue may meet nobody.

    Attributes:
        name: what to call the data in tables and figures.
        num_users: number of users.
        num_items: size of the catalogue.
        num_interactions: number of interactions, all users together.
        min_per_user: interactions of the least active user.
        num_factors: number of tastes, and of genres.
        factor_concentration: concentration of the Dirichlet law that mixes a user's tastes and
            an item's genres; the lower, the fewer each has and the more there is to learn.
        popularity_exponent: exponent of Zipf's law over the items; 0 makes all equally popular.
        activity_sigma: standard deviation of the log of a user's activity; 0 makes all equal.
        seed: seed of the data; the experiment's seed does not touch them.
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
        """See `base.lists_items`; the number of items is given."""
        return True

    @property
    def cache_path(self) -> Path:
        """The folder for prepared data; it need not exist yet."""
        return cache_root(self.cache_dir)

    def fingerprint(self) -> Fingerprint:
        """Everything that determines what `load` returns."""
        fields = asdict(self)
        del fields["cache_dir"]
        return {"dataset": "Synthetic", **fields}

    def load(self) -> Interactions:
        """Generate the data, chunk by chunk of users; rows ascend by user, then item."""
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
        """The strongest taste of some users, (len(sizes),); their items, ratings and times."""
        law = np.full(self.num_factors, self.factor_concentration)
        mixtures = rng.dirichlet(law, len(sizes))
        user, item = distinct_items(rng, sizes, Laws.of(mixtures), catalogue.tastes)
        rating = catalogue.ratings(rng, unit(mixtures), user, item)
        joined = rng.integers(_FIRST_SECOND, _FIRST_SECOND + _JOINING, len(sizes))
        timestamp = joined[user] + rng.integers(0, _STAYING, len(user))
        return mixtures.argmax(axis=1), item, rating, timestamp

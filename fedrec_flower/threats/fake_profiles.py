"""Fake profiles: malicious clients claim to like the targets, and honestly learn from that.

The oldest attack there is, and the only one that needs no word of the model: it works on exact
models, too. Source: Lam and Riedl 2004 (random); Burke et al. 2005 (bandwagon); in federations the
baselines of Zhang et al. 2022 and Rong et al. 2022 (all three).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.threats.poisoning import Poisoning


@dataclass(frozen=True)
class Profiles(Poisoning):
    """A profile is the targets, some popular items and some at random, as long as the user's own.

    One with fewer interactions than there are targets claims the targets alone. All claims are
    rated best where there are ratings. A profile is the same in every round, in a random order.

    Attributes:
        popular_share: share of the profile beside the targets that is popular.
        popular_pool: share of the catalogue, the most popular in training, that it is drawn
            from; 0: just the most popular ones.
        malicious: see `Poisoning`, like all that follow.
        num_targets: how many items are promoted.
        least_popular: share of the catalogue that targets are drawn from.
        targets: original ids of the promoted items, instead of drawn ones.
        seed: the experiment's seed.
        data: the prepared data.
    """

    popular_share: float
    popular_pool: float

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        super().__post_init__()
        for name in ("popular_share", "popular_pool"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"attack.{name} must be a share from 0 to 1: {share}")

    def tamper(self, data: ClientData) -> ClientData:
        """See `NoAttack.tamper`."""
        if data.client not in self.liars:
            return data
        rng = generator(self.seed, "profile", 0, data.client)
        profiles = [self._profile(int(length), rng) for length in np.diff(data.train.offsets)]
        item = np.concatenate(profiles).astype(np.int32)
        best = self.data.rating_range
        rating = None if best is None else np.full(len(item), best[1], np.float32)
        return replace(data, train=Columns(starts([*map(len, profiles)]), item, rating))

    def _profile(self, length: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The items that a user of so many interactions claims."""
        room = max(length - len(self.promoted), 0)
        others = self.most_popular[~np.isin(self.most_popular, self.promoted)]
        count = round(self.popular_share * room)
        pool = others[: max(round(self.popular_pool * len(others)), count)]
        popular = rng.choice(pool, count, replace=False)
        rest = others[~np.isin(others, popular)]
        filler = rng.choice(rest, min(room - count, len(rest)), replace=False)
        return rng.permutation(np.concatenate([self.promoted, popular, filler]))

"""Fake profiles: malicious clients train honestly on histories that contain the targets.

The attack does not depend on the model, so it also works on closed-form models.

Sources: Lam and Riedl 2004 (random); Burke et al. 2005 (bandwagon); Zhang et al. 2022 and Rong et
al. 2022 use all three as baselines in federations.
"""

from dataclasses import dataclass, replace

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import IndexArray
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.threats.poisoning import Poisoning


@dataclass(frozen=True)
class Profiles(Poisoning):
    """A profile has the targets, popular items and random items, as many as the user's history.

    A user with fewer interactions than there are targets has only the targets. All items have the
    best rating if the data have ratings. A profile is the same in every round, in random order.

    Attributes:
        popular_share: share of popular items in the profile, without the targets.
        popular_pool: share of the catalogue, the most popular in training, that popular items are
            drawn from; 0 for exactly the most popular ones.
        malicious: see `Poisoning`, also for the following attributes.
        num_targets: number of promoted items.
        least_popular: share of the catalogue that targets are drawn from.
        targets: original ids of the promoted items; None to draw them.
        seed: the experiment's seed.
        data: the prepared data.
    """

    popular_share: float
    popular_pool: float

    def __post_init__(self) -> None:
        """Validate the values."""
        super().__post_init__()
        for name in ("popular_share", "popular_pool"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"attack.{name} must be a share from 0 to 1: {share}")

    @override
    def tamper(self, data: ClientData) -> ClientData:
        if data.client not in self.malicious_clients:
            return data
        rng = generator(self.seed, "profile", 0, data.client)
        profiles = [self._profile(int(length), rng) for length in np.diff(data.train.offsets)]
        item = np.concatenate(profiles).astype(np.int32)
        best = self.data.rating_range
        rating = None if best is None else np.full(len(item), best[1], np.float32)
        return replace(data, train=Columns(starts([*map(len, profiles)]), item, rating))

    def _profile(self, length: int, rng: np.random.Generator) -> IndexArray:
        """The profile of a user with `length` interactions: int64 (max(length, num_targets),)."""
        room = max(length - len(self.promoted), 0)
        others = self.most_popular[~np.isin(self.most_popular, self.promoted)]
        count = round(self.popular_share * room)
        pool = others[: max(round(self.popular_pool * len(others)), count)]
        popular = rng.choice(pool, count, replace=False)
        rest = others[~np.isin(others, popular)]
        filler = rng.choice(rest, min(room - count, len(rest)), replace=False)
        return rng.permutation(np.concatenate([self.promoted, popular, filler]))

"""Malicious clients that promote items: who they are, what they promote, what they achieve.

A share of the real clients is compromised; no client is added, so a federation is as large as
without them. Whoever is malicious is so in every round, and so are the items that are promoted.
All of them know each other's targets, and of everyone else what the server publishes: how often
an item occurs in training, as far as an attack asks for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.random import generator
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.evaluation.metrics.ranking import NDCG, Ranks
from fedrec_flower.threats.base import NoAttack
from fedrec_flower.threats.byzantine import drawn_liars

_LISTED = 10  # places of a list in which an item counts as shown


@dataclass(frozen=True)
class Poisoning(NoAttack):
    """Targets are chosen and watched; what malicious clients do for them is for subclasses.

    By itself it does nothing, so it tells how often the targets are shown anyway.

    Attributes:
        malicious: share of the federation's clients, from 0 to below 1.
        num_targets: how many items are promoted.
        least_popular: share of the catalogue, the least popular in training, that targets are
            drawn from.
        targets: original ids of the promoted items, instead of drawn ones.
        seed: the experiment's seed.
        data: the prepared data.

    Raises:
        ConfigError: if a share or number is impossible, or an item does not exist.
    """

    malicious: float
    num_targets: int
    least_popular: float
    targets: list[int | str] | None
    seed: int
    data: Prepared

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        share, count, part = self.malicious, self.num_targets, self.least_popular
        require(0 <= share < 1, f"attack.malicious must be a share from 0 to below 1: {share}")
        require(0 < part <= 1, f"attack.least_popular must be a share above 0, up to 1: {part}")
        most = self.data.num_items
        require(1 <= count <= most, f"attack.num_targets must be from 1 to {most}: {count}")
        require(self.targets != [], "attack.targets is empty: name an item, or null to draw them")
        require(self.promoted.size > 0, "attack.targets names no item")

    @cached_property
    def liars(self) -> NDArray[np.int64]:
        """See `NoAttack.liars`."""
        clients = self.data.num_clients
        return np.flatnonzero(drawn_liars(self.seed, clients, self.malicious))

    @cached_property
    def promoted(self) -> NDArray[np.int64]:
        """int64 (num_targets,): codes of the promoted items, ascending."""
        if self.targets is not None:
            return np.unique([self._code(item) for item in self.targets])
        size = max(round(self.least_popular * self.data.num_items), self.num_targets)
        rng = generator(self.seed, "targets")
        return np.sort(rng.choice(self.most_popular[::-1][:size], self.num_targets, replace=False))

    @cached_property
    def most_popular(self) -> NDArray[np.int64]:
        """int64 (num_items,): every item, the one that occurs in training most often first."""
        train = self.data.part(Part.TRAIN)
        count = np.bincount(train.item, minlength=self.data.num_items)
        return np.argsort(-count, kind="stable")

    def lying(self, updates: Updates) -> NDArray[np.int64]:
        """int64 (n,): the places of malicious clients among those that send."""
        return np.flatnonzero(np.isin(updates.clients, self.liars))

    def measured(self, data: Prepared, recommended: NDArray[np.int32]) -> dict[str, Any]:
        """How often honest users are shown what is promoted, and how well they are served.

        Args:
            data: the prepared data.
            recommended: see `NoAttack.measured`.

        Returns:
            exposure@10, the share of honest users who never had a target and find it among their
            ten best, mean over targets (in the papers ER@10); ndcg@10_honest, NDCG@10 of honest
            users; how many targets, and malicious clients.
            Source: Zhang et al. 2022 (one target); Rong et al. 2022 (mean over targets).
        """
        client = np.repeat(np.arange(data.num_clients), np.diff(data.client_offsets))
        honest = ~np.isin(client, self.liars)
        listed = recommended[:, :_LISTED]
        k = listed.shape[1]
        shown = self._shown(listed, honest)
        return {
            f"exposure@{k}": float(np.mean(shown)) if shown else 0.0,
            f"ndcg@{k}_honest": _ndcg(data, listed, honest),
            "num_targets": len(self.promoted),
            "malicious": len(self.liars),
        }

    def _shown(self, listed: NDArray[np.int32], honest: NDArray[np.bool_]) -> list[float]:
        """Of each target that some honest user never had, the share of these who are shown it."""
        everything = [self.data.part(part) for part in Part]
        rates = []
        for target in self.promoted:
            strangers = honest.copy()
            for part in everything:
                strangers[part.users()[part.item == target]] = False
            if strangers.any():
                rates.append(float((listed[strangers] == target).any(axis=1).mean()))
        return rates

    def _code(self, item: int | str) -> int:
        """The code of an original id, whether the data's ids are numbers or words."""
        found = np.flatnonzero(self.data.item_ids.astype(str) == str(item))
        if not len(found):
            some = _listed(self.data.item_ids[:3])
            raise ConfigError(f"attack.targets: there is no item {item!r}; ids are {some}, ...")
        return int(found[0])


def _listed(ids: Iterable[Any]) -> str:
    return ", ".join(map(str, ids))


def _ndcg(data: Prepared, listed: NDArray[np.int32], honest: NDArray[np.bool_]) -> float:
    """NDCG of the lists' length over honest users, from the lists themselves."""
    test = data.part(Part.TEST)
    user = test.users()
    k = listed.shape[1]
    hit = listed[user] == np.asarray(test.item)[:, None]
    rank = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, k + 1)
    ascending = rank[np.lexsort((rank, user))]
    everything = np.full(data.num_users, data.num_items)
    quality = NDCG(k)(Ranks(ascending, np.asarray(test.offsets), everything))[honest]
    counted = quality[np.isfinite(quality)]
    return float(counted.mean()) if len(counted) else 0.0

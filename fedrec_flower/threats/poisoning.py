"""Base class of poisoning attacks: malicious clients, promoted items, and measured exposure.

A share of the real clients is malicious; no client is added, so the federation keeps its size. The
malicious clients and the promoted items are the same in every round. All malicious clients know
the targets. About other clients they know only what the server publishes: the number of times an
item occurs in training, if an attack uses it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import BoolArray, IndexArray
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.evaluation.metrics.base import Ranks
from fedrec_flower.evaluation.metrics.ranking import NDCG
from fedrec_flower.threats.base import Attack
from fedrec_flower.threats.byzantine import sample_byzantine_clients

_LIST_LENGTH = 10  # items of a recommendation list


@dataclass(frozen=True)
class Poisoning(Attack):
    """Samples the targets and measures their exposure; subclasses implement the attack.

    Without a subclass the clients stay honest, so the measured exposure is the baseline.

    Attributes:
        malicious: share of malicious clients, from 0 to below 1.
        num_targets: number of promoted items.
        least_popular: share of the catalogue, the least popular in training, that targets are
            drawn from.
        targets: original ids of the promoted items; None to draw them.
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
        """Validate the values."""
        share = self.malicious
        require(0 <= share < 1, f"attack.malicious must be a share from 0 to below 1: {share}")
        pool = self.least_popular
        require(0 < pool <= 1, f"attack.least_popular must be a share above 0, up to 1: {pool}")
        count = self.num_targets
        most = self.data.num_items
        require(1 <= count <= most, f"attack.num_targets must be from 1 to {most}: {count}")
        require(self.targets != [], "attack.targets is empty: name an item, or null to draw them")
        require(self.promoted.size > 0, "attack.targets names no item")

    @cached_property
    @override
    def malicious_clients(self) -> IndexArray:
        clients = self.data.num_clients
        return np.flatnonzero(sample_byzantine_clients(self.seed, clients, self.malicious))

    @cached_property
    def promoted(self) -> IndexArray:
        """int64 (num_targets,): codes of the promoted items, ascending."""
        if self.targets is not None:
            return np.unique([self._code(item) for item in self.targets])
        size = max(round(self.least_popular * self.data.num_items), self.num_targets)
        rng = generator(self.seed, "targets")
        return np.sort(rng.choice(self.most_popular[::-1][:size], self.num_targets, replace=False))

    @cached_property
    def most_popular(self) -> IndexArray:
        """int64 (num_items,): all items, the most frequent in training first."""
        train = self.data.part(Part.TRAIN)
        count = np.bincount(train.item, minlength=self.data.num_items)
        return np.argsort(-count, kind="stable")

    def malicious_places(self, updates: Updates) -> IndexArray:
        """int64 (n,): places of malicious clients in the updates."""
        return np.flatnonzero(np.isin(updates.clients, self.malicious_clients))

    def poisoning_metrics(self, data: Prepared, recommended: NDArray[np.int32]) -> dict[str, Any]:
        """Exposure of the targets to honest users, and the recommendation quality of these users.

        Args:
            data: the prepared data.
            recommended: int32 (num_users, k), each user's best unseen items, best first; -1 if a
                user has fewer.

        Returns:
            exposure@10: the share of honest users without a target in their data who have it in
            their ten best items, mean over targets (ER@10 in the papers); ndcg@10_honest: NDCG@10
            of honest users; num_targets; malicious: the number of malicious clients.
            Source: Zhang et al. 2022 (one target); Rong et al. 2022 (mean over targets).
        """
        client = np.repeat(np.arange(data.num_clients), np.diff(data.client_offsets))
        honest = ~np.isin(client, self.malicious_clients)
        listed = recommended[:, :_LIST_LENGTH]
        k = listed.shape[1]
        shown = self._shown(listed, honest)
        return {
            f"exposure@{k}": float(np.mean(shown)) if shown else 0.0,
            f"ndcg@{k}_honest": _ndcg(data, listed, honest),
            "num_targets": len(self.promoted),
            "malicious": len(self.malicious_clients),
        }

    def _shown(self, listed: NDArray[np.int32], honest: BoolArray) -> list[float]:
        """The exposure of each target that is new to at least one honest user."""
        parts = [self.data.part(part) for part in Part]
        rates = []
        for target in self.promoted:
            is_new = honest.copy()
            for part in parts:
                is_new[part.users()[part.item == target]] = False
            if is_new.any():
                rates.append(float((listed[is_new] == target).any(axis=1).mean()))
        return rates

    def _code(self, item: int | str) -> int:
        """The code of an original item id, which may be a number or a string."""
        codes = np.flatnonzero(self.data.item_ids.astype(str) == str(item))
        if not len(codes):
            some = ", ".join(map(str, self.data.item_ids[:3]))
            raise ConfigError(f"attack.targets: there is no item {item!r}; ids are {some}, ...")
        return int(codes[0])


def _ndcg(data: Prepared, listed: NDArray[np.int32], honest: BoolArray) -> float:
    """Mean NDCG@k of honest users, computed from their lists of length k."""
    test = data.part(Part.TEST)
    user = test.users()
    k = listed.shape[1]
    hit = listed[user] == np.asarray(test.item)[:, None]
    rank = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, k + 1)
    ascending = rank[np.lexsort((rank, user))]
    num_candidates = np.full(data.num_users, data.num_items)
    ndcg = NDCG(k)(Ranks(ascending, np.asarray(test.offsets), num_candidates))[honest]
    defined = ndcg[np.isfinite(ndcg)]
    return float(defined.mean()) if len(defined) else 0.0

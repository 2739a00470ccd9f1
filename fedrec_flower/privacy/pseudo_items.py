"""Pseudo items: sampled items hide which items a client has. This gives no guarantee.

Source: Lin et al. 2020, "FedRec: federated recommendation with explicit feedback": some items
without a rating are given a virtual rating (user averaging), and trained on like the others. For
implicit feedback they count as interactions. A client adds the same items in every round, because
new draws in each round would reveal the items that stay. The draws come from the node's secret, or
from the seed; a server that knows the seed can then separate them from the client's own items.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import IndexArray
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.mechanism import PrivacyMechanism, ServerMechanism
from fedrec_flower.privacy.noise import NoiseSource, NoiseStream
from fedrec_flower.privacy.requirements import AggregationFacts, RunFacts
from fedrec_flower.privacy.statement import pseudo_items_scope


@dataclass(frozen=True)
class PseudoItems(PrivacyMechanism):
    """Clients train on their own items and on sampled ones.

    Attributes:
        ratio: number of added items / number of the user's items.
        dense: whether messages contain every row, touched or not.

    Raises:
        ConfigError: if the ratio is negative.
    """

    ratio: float
    dense: bool

    def __post_init__(self) -> None:
        """Validate the values."""
        require(self.ratio >= 0, f"privacy.ratio must not be negative: {self.ratio}")

    @property
    @override
    def has_guarantee(self) -> bool:
        return False

    @property
    @override
    def trusts_server(self) -> bool:
        return True

    @property
    @override
    def is_random(self) -> bool:
        return True

    @property
    @override
    def hides_rows(self) -> bool:
        return self.dense

    @override
    def check(self, run: RunFacts, aggregation: AggregationFacts) -> None:
        """Dense messages do not allow a division by the clients that touched a row."""
        require(
            not (self.dense and aggregation.by_row),
            "privacy.dense=true hides which clients touched a row, but "
            "strategy.aggregation=touched_clients divides by their number: set "
            "strategy.aggregation=all_clients",
        )

    @override
    def max_weight(self, max_examples: int, max_users: int) -> float:
        """Pseudo items are counted as interactions."""
        return float(max_examples + round(self.ratio * max_examples))

    @override
    def server_mechanism(
        self, run: RunFacts, noise_source: NoiseSource, ledger: Ledger = NO_LEDGER
    ) -> "PseudoItemsServer":
        """The server side has no account."""
        return PseudoItemsServer(seeded=isinstance(noise_source.seed, int))

    @override
    def training_data(
        self, data: ClientData, num_items: int, noise_source: NoiseSource
    ) -> ClientData:
        cuts = data.train.offsets
        users = [data.train.slice(user, user + 1) for user in range(len(cuts) - 1)]
        filled = [
            self._filled(
                history,
                num_items,
                noise_source.persistent_stream("pseudo-items", data.first + user),
            )
            for user, history in enumerate(users)
        ]
        ratings = [history.rating for history in filled if history.rating is not None]
        items = [np.zeros(0, np.int32), *(history.item for history in filled)]
        whole = Columns(
            starts([len(history.item) for history in filled]),
            np.concatenate(items),
            np.concatenate(ratings) if ratings else data.train.rating,
        )
        return replace(data, train=whole)

    def _filled(self, history: Columns, num_items: int, source: NoiseStream) -> Columns:
        """One user's history with sampled items at random places; the user's items keep order."""
        unseen = np.setdiff1d(np.arange(num_items, dtype=np.int32), history.item)
        num_added = min(round(self.ratio * len(history.item)), len(unseen))
        added = unseen[_sampled(source, len(unseen), num_added)]
        size = len(history.item) + num_added
        is_added = np.zeros(size, np.bool_)
        is_added[_sampled(source, size, num_added)] = True
        item = np.zeros(size, np.int32)
        item[is_added] = added
        item[~is_added] = history.item
        if history.rating is None:
            return Columns(starts([size]), item, None)
        rating = np.full(size, history.rating.mean() if len(history.rating) else 0.0, np.float32)
        rating[~is_added] = history.rating
        return Columns(starts([size]), item, rating)


class PseudoItemsServer(ServerMechanism):
    """The server side of pseudo items: it gives no guarantee, and the summary says so.

    Args:
        seeded: whether the sampled items follow from the experiment's seed.
    """

    def __init__(self, *, seeded: bool) -> None:
        self._seeded = seeded

    @override
    def facts(self) -> dict[str, Any]:
        return {"privacy": pseudo_items_scope(seeded=self._seeded)}


def _sampled(source: NoiseStream, size: int, count: int) -> IndexArray:
    """`count` integers below `size`, without repetition."""
    return np.argsort(source.uniform((size,)))[:count]

"""Hiding which items a client has among others that it never had. A mask, no guarantee.

Source: Lin et al. 2020, "FedRec: federated recommendation with explicit feedback": some items
without a rating are given a virtual one (user averaging), and trained on like the others. For
implicit feedback they count as interactions. A client adds the same items in every round, for
items drawn anew each time would give away those that stay: they follow from the node's secret, or
from the seed, by which a server that knows it tells them from the client's own.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.mechanism import Curator, NoPrivacy
from fedrec_flower.privacy.noise import Chance, Source
from fedrec_flower.privacy.requirements import Circumstances, Way


@dataclass(frozen=True)
class PseudoItems(NoPrivacy):
    """Clients train on sampled items beside their own.

    Attributes:
        ratio: items added per item that a user has.
        dense: whether messages tell of every row, touched or not.

    Raises:
        ConfigError: if the ratio is negative.
    """

    ratio: float
    dense: bool

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        require(self.ratio >= 0, f"privacy.ratio must not be negative: {self.ratio}")

    @property
    def draws(self) -> bool:
        """See `NoPrivacy.draws`."""
        return True

    @property
    def hides_rows(self) -> bool:
        """See `NoPrivacy.hides_rows`."""
        return self.dense

    def check(self, run: Circumstances, way: Way) -> None:
        """See `NoPrivacy.check`; dense messages are the only ones that know no rows."""
        del run
        require(
            not (self.dense and way.by_row),
            "privacy.dense=true tells no touched rows, yet rows are divided by their number: set "
            "strategy.aggregation=all_clients",
        )

    def most_weight(self, most_examples: int, most_users: int) -> float:
        """See `NoPrivacy.most_weight`; pseudo items count like others."""
        del most_users
        return float(most_examples + round(self.ratio * most_examples))

    def curator(self, run: Circumstances, chance: Chance, ledger: Ledger = NO_LEDGER) -> "Masked":
        """See `NoPrivacy.curator`; nothing is spent."""
        del run, ledger
        return Masked(seeded=isinstance(chance.seed, int))

    def disguise(self, data: ClientData, num_items: int, chance: Chance) -> ClientData:
        """See `NoPrivacy.disguise`."""
        cuts = data.train.offsets
        users = [data.train.slice(user, user + 1) for user in range(len(cuts) - 1)]
        filled = [
            self._filled(own, num_items, chance.lasting("pseudo-items", data.first + user))
            for user, own in enumerate(users)
        ]
        ratings = [own.rating for own in filled if own.rating is not None]
        items = [np.zeros(0, np.int32), *(own.item for own in filled)]
        whole = Columns(
            starts([len(own.item) for own in filled]),
            np.concatenate(items),
            np.concatenate(ratings) if ratings else data.train.rating,
        )
        return replace(data, train=whole)

    def _filled(self, own: Columns, num_items: int, source: Source) -> Columns:
        """One user's history with the sampled items strewn in; its own keep their order."""
        others = np.setdiff1d(np.arange(num_items, dtype=np.int32), own.item)
        count = min(round(self.ratio * len(own.item)), len(others))
        added = others[_chosen(source, len(others), count)]
        size = len(own.item) + count
        place = np.zeros(size, np.bool_)
        place[_chosen(source, size, count)] = True
        item = np.zeros(size, np.int32)
        item[place], item[~place] = added, own.item
        if own.rating is None:
            return Columns(starts([size]), item, None)
        rating = np.full(size, own.rating.mean() if len(own.rating) else 0.0, np.float32)
        rating[~place] = own.rating
        return Columns(starts([size]), item, rating)


class Masked(Curator):
    """Promises nothing and says so.

    Args:
        seeded: whether the sampled items follow from the experiment's seed.
    """

    def __init__(self, *, seeded: bool) -> None:
        self._seeded = seeded

    def facts(self) -> dict[str, Any]:
        """See `Curator.facts`."""
        told = "anyone who can tell sampled items from chosen ones"
        if self._seeded:
            told += ": whoever knows the seed (randomness=seeded), as the server does, can"
        mechanism = "pseudo items: hiding, not a guarantee"
        return {"privacy": {"mechanism": mechanism, "does_not_cover": told}}


def _chosen(source: Source, size: int, count: int) -> NDArray[np.int64]:
    """Some of the first integers, without repetition."""
    return np.argsort(source.uniform((size,)))[:count]

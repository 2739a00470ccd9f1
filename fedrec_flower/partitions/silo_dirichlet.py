"""Silos that differ in taste: for each genre, a Dirichlet draw says which silo gets its users.

A user is labelled by the genre it consumed most in train. For each genre, the shares of the
clients are drawn from Dirichlet(alpha, ..., alpha) and the genre's users are dealt accordingly;
users who consumed no known genre are dealt as one more genre. A small alpha gives silos of one
taste, a large one silos that look alike. A client left without users receives one from the then
largest client, so that the number of clients is always the one asked for.

Source: Yurochkin et al. 2019, "Bayesian nonparametric federated learning of neural networks",
section 4 (a draw per class, over clients); Hsu et al. 2019, "Measuring the effects of
non-identical data distribution for federated visual classification" (alpha as the measure of skew;
there a draw per client, over classes).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import ConfigError, DataError
from fedrec_flower.interactions import Interactions, Part, Partition, Split
from fedrec_flower.partitions.genres import Genres
from fedrec_flower.partitions.silos import deal, fill_empty, require_silos, silos
from fedrec_flower.seeding import generator


@dataclass(frozen=True, slots=True)
class SiloDirichlet:
    """Deal the users of each genre by shares drawn from a Dirichlet distribution.

    Attributes:
        num_clients: number of silos.
        alpha: concentration, above 0; near 0 a genre lives in one silo, at 100 silos look alike.

    Raises:
        ConfigError: if alpha is not above 0 and finite.
    """

    num_clients: int
    alpha: float

    def __post_init__(self) -> None:
        if not 0 < self.alpha < np.inf:
            raise ConfigError(
                f"partition.alpha={self.alpha} is impossible: choose a number above 0, such as 0.5"
            )

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user a client, by the genres of its training interactions.

        Raises:
            ConfigError: if there is no client, or there are more clients than users.
            DataError: if the items have no genres.
        """
        require_silos(self.num_clients, interactions.num_users)
        genre_of_user = _label(interactions, split)
        rng = generator(seed, "partition")
        clients = np.empty(interactions.num_users, dtype=np.int64)
        for genre in np.unique(genre_of_user):
            users = np.flatnonzero(genre_of_user == genre)
            clients[users] = deal(self._sizes(len(users), rng), rng)
        return silos(fill_empty(clients, self.num_clients, rng), self.num_clients)

    def _sizes(self, num_users: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """How many users of one genre go to each client, int64 (num_clients,)."""
        shares = rng.dirichlet(np.full(self.num_clients, self.alpha))
        # Rounding the summed shares, not each share, so that the sizes sum to num_users.
        ends = np.rint(np.cumsum(shares) * num_users).astype(np.int64)
        return np.diff(ends, prepend=0)


def _label(interactions: Interactions, split: Split) -> NDArray[np.int64]:
    """The genre each user consumed most in train, int64 (num_users,); -1 for none.

    Raises:
        DataError: if the items have no genres.
    """
    genres = Genres.read(interactions)
    if len(genres.names) == 0:
        raise DataError(
            f"the items of {interactions.name} have no genres and partition=silo_dirichlet deals "
            'users by genre: add a column "genres" or choose another partition'
        )
    train = split.rows(Part.TRAIN)
    user, item = interactions.user[train], interactions.item[train]
    return genres.top(user, item, interactions.num_users)

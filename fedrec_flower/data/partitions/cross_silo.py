"""Partitions into a given number of silos, or into one silo per value of a user attribute.

- `SiloRandom`: silos of equal size, users at random (IID).
- `SiloQuantity`: sizes follow a power law: a few silos are large, most are small.
  Source: Li et al. 2022, "Federated learning on non-IID data silos" (quantity skew; there the sizes
  are drawn from a Dirichlet distribution, here they follow Zipf's law and are equal for every
  seed).
- `SiloAttribute`: silos by an attribute such as occupation or gender: a natural non-IID split.
- `SiloDirichlet`: silos that differ in taste. Each user has a label, the genre with most of its
  training interactions. For each genre, the shares of the clients are drawn from
  Dirichlet(alpha, ..., alpha), and the users of the genre are assigned by these shares. Users
  without a known genre form one more label. A small alpha gives silos with one genre, a large alpha
  gives similar silos. A client without users receives one from the largest client at that time, so
  the number of clients is always the configured one.
  Source: Yurochkin et al. 2019, "Bayesian nonparametric federated learning of neural networks",
  section 4 (a draw per class, over clients); Hsu et al. 2019, "Measuring the effects of
  non-identical data distribution for federated visual classification" (alpha as the measure of
  skew; there a draw per client, over classes).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.core.random import generator
from fedrec_flower.data.features import Genres
from fedrec_flower.data.interactions import Interactions, Part, Partition, Split


def require_silos(num_clients: int, num_users: int) -> None:
    """Check that every client can have a user.

    Raises:
        ConfigError: if there is no client, or there are more clients than users.
    """
    if not 1 <= num_clients <= num_users:
        raise ConfigError(
            f"partition.num_clients={num_clients} is impossible with {num_users} users: "
            f"choose from 1 to {num_users}"
        )


def silos(client_of_user: NDArray[np.integer], num_clients: int) -> Partition:
    """Return a partition with client names "silo 0", "silo 1" and so on."""
    names = np.array([f"silo {client}" for client in range(num_clients)])
    return Partition(client_of_user.astype(np.int32), names)


def deal(sizes: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """Assign users to clients at random, a given number to each client.

    Args:
        sizes: (num_clients,), users per client; they sum to num_users.
        rng: random generator for the order of the users.

    Returns:
        int64 (num_users,), the client of each user.
    """
    clients = np.repeat(np.arange(len(sizes)), sizes)
    return rng.permutation(clients)


def fill_empty(
    client_of_user: NDArray[np.int64], num_clients: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Move one user to each empty client, each time from the largest client at that time.

    Args:
        client_of_user: int64 (num_users,), in [0, num_clients); num_users >= num_clients.
        num_clients: number of clients, empty ones included.
        rng: chooses which users of a client move.

    Returns:
        int64 (num_users,), every client has a user; unchanged if no client was empty.
    """
    sizes = np.bincount(client_of_user, minlength=num_clients)
    empty = np.flatnonzero(sizes == 0)
    # Stack each client's users in random order. Taking the highest users over all stacks equals
    # taking one user from the highest stack repeatedly.
    order = np.lexsort((rng.random(len(client_of_user)), client_of_user))
    height = np.empty(len(order), dtype=np.int64)
    height[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    filled = client_of_user.copy()
    filled[np.argsort(-height, kind="stable")[: len(empty)]] = empty
    return filled


@dataclass(frozen=True, slots=True)
class SiloRandom:
    """Assign the users evenly to the clients.

    Attributes:
        num_clients: number of silos; their sizes differ by one user at most.
    """

    num_clients: int

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Assign each user to a client. `split` is unused.

        Raises:
            ConfigError: if there is no client, or there are more clients than users.
        """
        del split
        require_silos(self.num_clients, interactions.num_users)
        share, left = divmod(interactions.num_users, self.num_clients)
        sizes = share + (np.arange(self.num_clients) < left)
        return silos(deal(sizes, generator(seed, "partition")), self.num_clients)


@dataclass(frozen=True, slots=True)
class SiloQuantity:
    """Assign the users at random to clients of unequal size.

    Attributes:
        num_clients: number of silos.
        exponent: silo i (from 1) has a share of users near i ** -exponent; 0 gives equal silos.

    Raises:
        ConfigError: if the exponent is negative or not finite.
    """

    num_clients: int
    exponent: float

    def __post_init__(self) -> None:
        if not 0 <= self.exponent < np.inf:
            raise ConfigError(
                f"partition.exponent={self.exponent} is impossible: choose 0 (equal silos) or above"
            )

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Assign each user to a client. The sizes do not depend on the seed. `split` is unused.

        Raises:
            ConfigError: if there is no client, or there are more clients than users.
        """
        del split
        require_silos(self.num_clients, interactions.num_users)
        weights = np.arange(1, self.num_clients + 1, dtype=np.float64) ** -self.exponent
        sizes = _apportion(interactions.num_users, weights)
        return silos(deal(sizes, generator(seed, "partition")), self.num_clients)


def _apportion(num_users: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return sizes that sum to `num_users`: one user each, the others by `weights` (num_clients,).

    Rounding follows the largest remainder method.
    """
    rest = num_users - len(weights)
    quota = rest * weights / weights.sum()
    sizes: NDArray[np.int64] = np.floor(quota).astype(np.int64)
    left = rest - sizes.sum()
    sizes[np.argsort(sizes - quota, kind="stable")[:left]] += 1
    return sizes + 1


@dataclass(frozen=True, slots=True)
class SiloAttribute:
    """One client per value of a user attribute.

    Attributes:
        attribute: a column of the user table. Users without a value share the client "unknown".
    """

    attribute: str

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Assign each user to the client of its value. Clients are named and sorted by value.

        Raises:
            ConfigError: if the users have no such attribute; names those they have.
        """
        del split, seed
        codes, values = pd.factorize(self._column(interactions), sort=True)
        names = values.astype(str).to_numpy(dtype=object)
        if (codes < 0).any():
            codes = np.where(codes < 0, len(names), codes)
            names = np.append(names, "unknown")
        return Partition(codes.astype(np.int32), names)

    def _column(self, interactions: Interactions) -> "pd.Series[Any]":
        """Return the attribute of each user, (num_users,)."""
        if self.attribute not in interactions.users.columns:
            known = ", ".join(map(str, interactions.users.columns)) or "none, use partition=user"
            raise ConfigError(
                f"partition.attribute={self.attribute} is no attribute of the users of "
                f"{interactions.name}: choose from those they have ({known})"
            )
        return interactions.users[self.attribute]


@dataclass(frozen=True, slots=True)
class SiloDirichlet:
    """Assign the users of each genre by shares drawn from a Dirichlet distribution.

    Attributes:
        num_clients: number of silos.
        alpha: concentration, above 0. Near 0 each genre is in one silo, at 100 silos are similar.

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
        """Assign each user to a client by the genres of its training interactions.

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
        """Return the number of users of one genre for each client, int64 (num_clients,)."""
        shares = rng.dirichlet(np.full(self.num_clients, self.alpha))
        # Rounding the summed shares, not each share, so that the sizes sum to num_users.
        ends = np.rint(np.cumsum(shares) * num_users).astype(np.int64)
        return np.diff(ends, prepend=0)


def _label(interactions: Interactions, split: Split) -> NDArray[np.int64]:
    """Return the most frequent genre of each user in train, int64 (num_users,); -1 for none.

    Raises:
        DataError: if the items have no genres.
    """
    genres = Genres.read(interactions)
    if len(genres.names) == 0:
        raise DataError(
            f"the items of {interactions.name} have no genres and partition=silo_dirichlet assigns "
            'users by genre: add a column "genres" or choose another partition'
        )
    train = split.rows(Part.TRAIN)
    user, item = interactions.user[train], interactions.item[train]
    return genres.top(user, item, interactions.num_users)

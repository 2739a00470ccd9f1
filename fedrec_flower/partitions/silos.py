"""What the partitions into a given number of silos share: checks, names, dealing users."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import ConfigError
from fedrec_flower.interactions import Partition


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
    """A partition whose clients are called "silo 0", "silo 1" and so on."""
    names = np.array([f"silo {client}" for client in range(num_clients)])
    return Partition(client_of_user.astype(np.int32), names)


def deal(sizes: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal users to clients at random, a given number to each.

    Args:
        sizes: (num_clients,), users per client; they sum to num_users.
        rng: where the order of the users comes from.

    Returns:
        int64 (num_users,), the client of each user.
    """
    clients = np.repeat(np.arange(len(sizes)), sizes)
    return rng.permutation(clients)


def fill_empty(
    client_of_user: NDArray[np.int64], num_clients: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Move one user to each client without any, each time from the then largest client.

    Args:
        client_of_user: int64 (num_users,), in [0, num_clients); num_users >= num_clients.
        num_clients: number of clients, empty ones included.
        rng: chooses which users of a client move.

    Returns:
        int64 (num_users,), every client has a user; unchanged where none was empty.
    """
    sizes = np.bincount(client_of_user, minlength=num_clients)
    empty = np.flatnonzero(sizes == 0)
    # Stack each client's users in random order. Taking the users that stand highest over all
    # stacks is the same as taking from the highest stack again and again.
    order = np.lexsort((rng.random(len(client_of_user)), client_of_user))
    height = np.empty(len(order), dtype=np.int64)
    height[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    filled = client_of_user.copy()
    filled[np.argsort(-height, kind="stable")[: len(empty)]] = empty
    return filled

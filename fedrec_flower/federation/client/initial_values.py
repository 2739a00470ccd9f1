"""Initial values of personal parameters, drawn for many clients at once.

A value depends on the seed, the parameter, the client and its place in the client's array alone.
Clients therefore start with the same values wherever they are hosted, and in any order.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import Seed, draw, generator, streams
from fedrec_flower.core.types import Float32Array, Shapes, Tensors
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.layers import elementwise


@dataclass(frozen=True, slots=True)
class InitialValues:
    """Draws the initial values of clients.

    Attributes:
        model: declares the distributions.
        shapes: shapes of the personal parameters of a client with one user, by name. The place
            of a parameter among them is part of the address of its draws.
        seed: the experiment's seed, or a node's secret.
    """

    model: Recommender
    shapes: Shapes
    seed: Seed

    def of(self, clients: NDArray[np.int64], num_users: NDArray[np.int64]) -> Tensors:
        """Draw all personal parameters of some clients.

        Args:
            clients: int64 (n,), client codes.
            num_users: int64 (n,), number of users of each client.

        Returns:
            float32 by name. A table with a row per user has the rows of the clients' users, client
            after client: (sum of `num_users`, ...). Any other parameter is (n, ...).
        """
        return {
            name: self._draw(place, name, clients, num_users)
            for place, name in enumerate(self.shapes)
        }

    def _draw(
        self,
        place: int,
        name: str,
        clients: NDArray[np.int64],
        num_users: NDArray[np.int64],
    ) -> Float32Array:
        per_user = name in self.model.user_rows
        shape = self.shapes[name]
        init = self.model.ownership.inits[name]
        distribution = elementwise(init, None if per_user else shape)
        if distribution is None:
            return self._draw_one_by_one(place, name, clients, num_users)
        # Rows of users, or one row per client.
        shape = shape[1:] if per_user else shape
        counts = num_users if per_user else np.ones_like(num_users)
        stream = streams(self.seed, "initial-personal", place, clients).repeat(counts)
        row = np.arange(len(stream)) - np.repeat(np.cumsum(counts) - counts, counts)
        width = prod(shape)
        bits = draw(stream[:, None], row[:, None] * width + np.arange(width))
        return distribution.from_bits(bits).reshape(-1, *shape)

    def _draw_one_by_one(
        self,
        place: int,
        name: str,
        clients: NDArray[np.int64],
        num_users: NDArray[np.int64],
    ) -> Float32Array:
        """Draw each client's array as a whole, for distributions of the user's own."""
        per_user = name in self.model.user_rows
        shape = self.shapes[name]
        drawn = [np.zeros((0, *(shape[1:] if per_user else shape)), np.float32)]
        for client, users in zip(clients.tolist(), num_users.tolist(), strict=True):
            rng = generator(self.seed, "initial-personal", place, client)
            if per_user:
                drawn.append(self.model.initial_value(name, (users, *shape[1:]), rng))
            else:
                drawn.append(self.model.initial_value(name, shape, rng)[None])
        return np.concatenate(drawn)

"""Random scores: the floor under every table.

Shared: nothing, no byte travels. Personal: a random number per user, so that every user has a
ranking of their own and keeps it from one evaluation to the next.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fedrec_flower.core.random import Streams, draw, splitmix64_finalize
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import NO_NOISE, ClosedFormRecommender, Noise


class RandomScores(ClosedFormRecommender):
    """Score = a hash of the user's random number and the item, uniform in [0, 1).

    Args:
        num_users: how many users are loaded at first.
        num_items: size of the catalogue.
    """

    user_rows: ClassVar[frozenset[str]] = frozenset({"key"})
    statistic_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.key = nn.Parameter(torch.zeros(num_users, 1))

    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        """See `ClosedFormRecommender.statistics`; there is nothing to tell."""
        del history, parameters, share
        return {}

    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """See `ClosedFormRecommender.solve`; there is nothing to learn."""
        del sums, noise
        return parameters

    def score_histories(self, users: IndexArray) -> Float32Array:
        """See `ClosedFormRecommender.score_histories`."""
        starts = splitmix64_finalize(self.value("key")[users].view(np.uint32).astype(np.uint64))
        bits = draw(Streams(starts), np.arange(self.num_items))
        # The 24 bits that a float32 holds.
        return (bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24)

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Uniform in [0, 1)."""
        del name
        return rng.random(shape, np.float32)

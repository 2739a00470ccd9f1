"""Random scores: the lower bound of every comparison.

Shared: none. Personal: a random number per user, which gives each user a ranking that
stays the same from one evaluation to the next.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from fedrec_flower.core.random import Streams, draw, splitmix64_finalize
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import NO_NOISE, ClosedFormRecommender, Noise
from fedrec_flower.models.layers import Initialized, PerUser


class RandomScores(ClosedFormRecommender):
    """Score = a hash of the user's random number and the item, uniform in [0, 1).

    Args:
        num_users: number of users that are loaded first.
        num_items: size of the catalogue.
    """

    statistic_names: ClassVar[tuple[str, ...]] = ()

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        key = nn.Parameter(torch.zeros(num_users, 1))
        self.key = PerUser(Initialized(key, _uniform_in_unit_interval))

    @override
    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        del history, parameters, share
        return {}

    @override
    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        del sums, noise
        return parameters

    @override
    def score_histories(self, users: IndexArray) -> Float32Array:
        keys = splitmix64_finalize(self.value("key")[users].view(np.uint32).astype(np.uint64))
        bits = draw(Streams(keys), np.arange(self.num_items))
        # float32 has 24 significant bits.
        return (bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def _uniform_in_unit_interval(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    return rng.random(shape, np.float32)

"""EASE: a linear autoencoder without hidden layer, in closed form.

Shared: the item-to-item weights. Personal: none. With m items a client sends 2 m (m + 1)
bytes once (the lower half of its Gram matrix) and receives 4 m ** 2: 5.7 and 11.3 MB for 1,682
items, 27 and 55 MB for 3,706. The server inverts a float64 matrix of 8 m ** 2 bytes.

Source: Steck 2019, "Embarrassingly shallow autoencoders for sparse data", Algorithm 1.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import NO_NOISE, ClosedFormRecommender, Noise, incidence
from fedrec_flower.models.layers import PerItem
from fedrec_flower.models.ops.cooccurrence import (
    cooccurrences,
    debiased,
    insignificant,
    norms,
    symmetric,
    without_noise,
)


class EASE(ClosedFormRecommender):
    """Score = sum of the weights from the items in the user's history.

    The weights minimise |X - X B|^2 + regularization |B|^2 with a zero diagonal.

    Args:
        num_users: number of users that are loaded first.
        num_items: size of the catalogue.
        regularization: L2 penalty on the weights (lambda), in units of users; above 0.
    """

    statistic_names: ClassVar[tuple[str, ...]] = ("cooccurrences",)
    node_bytes: ClassVar[float] = 26.0  # measured
    server_bytes: ClassVar[float] = 70.0  # measured, with noise
    bounded: ClassVar[bool] = True

    def __init__(self, num_users: int, num_items: int, regularization: float) -> None:
        require(regularization > 0, f"model.regularization must be above 0: {regularization}")
        super().__init__(num_users, num_items)
        self.item_weights = PerItem(nn.Parameter(torch.zeros(num_items, num_items)))
        self.regularization = regularization

    @override
    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        del parameters
        value = None if share is None else np.sqrt(share)
        return {"cooccurrences": cooccurrences(incidence(history, self.num_items, value))}

    @override
    def statistic_norms(self, history: Columns, user_offsets: IndexArray) -> Float64Array:
        return norms(history, user_offsets, self.num_items)

    @override
    def largest_std(self, noise: Noise) -> float:
        """Standard deviation of a pair of items."""
        return float(noise.of_pairs(np.full(2, noise.num_users))[0, 1])

    @override
    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        pairs = debiased(sums["cooccurrences"], self.num_items, flip_rate, num_users)
        return {"cooccurrences": pairs}

    @override
    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """Algorithm 1, on the Gram matrix after removal of noise."""
        del parameters
        gram = symmetric(sums["cooccurrences"], self.num_items)
        # An item without users has zero weights; leaving it out is exact and cheaper.
        items = np.flatnonzero(~insignificant(gram.diagonal(), noise.of_items))
        block = np.ix_(items, items)
        weights = np.zeros(gram.shape, np.float32)
        part = gram[block]
        if noise and len(items):
            part = without_noise(part, noise.of_rare_pairs)
        weights[block] = _weights(part, self.regularization)
        return {"item_weights": weights}

    @override
    def score_histories(self, users: IndexArray) -> Float32Array:
        scores: Float32Array = self._history[users] @ self.value("item_weights")
        return scores


def _weights(gram: Float64Array, regularization: float) -> Float64Array:
    """The weights of a Gram matrix (n, n), computed in its own memory."""
    from scipy.linalg import lapack

    np.fill_diagonal(gram, gram.diagonal() + regularization)
    # The matrix is symmetric, and LAPACK works in place on the transpose of a C array.
    factor, _ = lapack.dpotrf(gram.T, overwrite_a=True)
    inverse, _ = lapack.dpotri(factor, overwrite_c=True)
    inverse = np.triu(inverse) + np.triu(inverse, 1).T
    weights: Float64Array = inverse / -inverse.diagonal()
    np.fill_diagonal(weights, 0.0)
    return weights

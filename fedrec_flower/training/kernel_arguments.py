"""Arguments of the compiled kernels, in a module of their own: `kernels` imports Numba."""

from typing import NamedTuple

import numpy as np

from fedrec_flower.core.types import Float32Array, IndexArray

BCE, BPR, MSE = 0, 1, 2


class Parameters(NamedTuple):
    """The parameters of a chunk of clients, changed in place; every array is contiguous.

    Attributes:
        user: float32 (num_users, d), user vectors.
        item: float32 (num_rows, d), item vectors of the touched rows.
        user_bias: float32 (num_users,); zeros if the model has none.
        item_bias: float32 (num_rows,).
        global_bias: float32 (num_clients,), a copy per client; zeros if the model has none.
        weight: float32 (num_clients, d), a copy per client; ones if the model has none.
        user_steps: int64 (num_users,), number of its client's steps that a row has received.
        item_steps: int64 (num_rows,), likewise.
    """

    user: Float32Array
    item: Float32Array
    user_bias: Float32Array
    item_bias: Float32Array
    global_bias: Float32Array
    weight: Float32Array
    user_steps: IndexArray
    item_steps: IndexArray


class Offsets(NamedTuple):
    """The constant terms that are added to gradients: `CorrectionTerms.offset`.

    Every array has the shape of the parameter in `Parameters`, or no rows if there is no term.

    Attributes:
        item: for `Parameters.item`.
        item_bias: for `Parameters.item_bias`.
        global_bias: for `Parameters.global_bias`.
        weight: for `Parameters.weight`.
    """

    item: Float32Array
    item_bias: Float32Array
    global_bias: Float32Array
    weight: Float32Array


class Rates(NamedTuple):
    """The constants of a step.

    Attributes:
        loss: BCE, BPR or MSE.
        table: learning rate of table rows.
        dense: learning rate of global bias and weights.
        shrink: factor of one step's weight decay on a row, 1 - learning rate * weight decay.
        learns: whether user biases, the global bias and the weights are trained.
        batch_size: samples per step.
        item_shrink: factor of one step's weight decay and correction on an item's row.
        global_pull: `CorrectionTerms.factor` of the global bias.
        weight_pull: `CorrectionTerms.factor` of the weights.
    """

    loss: int
    table: np.float32
    dense: np.float32
    shrink: float
    learns: tuple[bool, bool, bool]
    batch_size: int
    item_shrink: float
    global_pull: np.float32
    weight_pull: np.float32

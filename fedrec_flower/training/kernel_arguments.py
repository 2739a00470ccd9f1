"""Arguments of the compiled kernels, in a module of their own: `kernels` imports Numba."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import BoolArray, Float32Array, Float64Array, IndexArray

BCE, BPR, MSE, SOFTMAX = 0, 1, 2, 3

ALL = 1 << 40
"""A batch size beyond any number of samples."""

Int32Array = NDArray[np.int32]


class Parameters(NamedTuple):
    """The parameters of one client, or of a chunk of clients; changed in place, contiguous.

    Attributes:
        user: float32 (num_users, d), user vectors.
        item: float32 (num_rows, d), item vectors of the touched rows.
        user_bias: float32 (num_users,); zeros if the model has none.
        item_bias: float32 (num_rows,).
        global_bias: float32 (num_clients,), a copy per client; zeros if the model has none.
        weight: float32 (num_clients, d), a copy per client; ones if the model has none.
    """

    user: Float32Array
    item: Float32Array
    user_bias: Float32Array
    item_bias: Float32Array
    global_bias: Float32Array
    weight: Float32Array


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
        loss: BCE, BPR, MSE or SOFTMAX.
        table: learning rate of table rows.
        dense: learning rate of global bias and weights.
        shrink: factor of one step's weight decay on a row, 1 - learning rate * weight decay.
        learns: whether user biases, the global bias and the weights are trained.
        batch_size: samples per step; ALL for all samples of an epoch.
        item_shrink: factor of one step's weight decay and correction on an item's row.
        item_pull: `CorrectionTerms.factor` of the item vectors.
        bias_pull: `CorrectionTerms.factor` of the global bias.
        weight_pull: `CorrectionTerms.factor` of the weights.
    """

    loss: int
    table: np.float32
    dense: np.float32
    shrink: float
    learns: tuple[bool, bool, bool]
    batch_size: int
    item_shrink: float
    item_pull: np.float32
    bias_pull: np.float32
    weight_pull: np.float32


class Work(NamedTuple):
    """Work arrays of one client at a time.

    Attributes:
        slope: float32 (batch_size, width), derivatives of the loss by the scores.
        factor: float32 (num_users, d), user vectors times weights.
        gradient: float32 (num_users, d), zeros between steps.
        bias_gradient: float32 (num_users,), zeros between steps.
        user_steps: int32 (num_users,), number of the client's steps that a user's row received.
        item_steps: int32 (num_rows,), likewise.
    """

    slope: Float32Array
    factor: Float32Array
    gradient: Float32Array
    bias_gradient: Float32Array
    user_steps: Int32Array
    item_steps: Int32Array


class Clients(NamedTuple):
    """The training data of clients and their draws of a round.

    Attributes:
        offsets: int64 (num_clients + 1,), where each client's interactions begin.
        user_offsets: int64 (num_clients + 1,), where each client's users begin.
        user: int64 (n,), the user of each interaction, counted from the first client's first.
        item: int64 (n,), item codes.
        rating: float32 (n,); no rows for tasks without ratings.
        negatives: int64 (num_epochs, n * num_negatives), item codes; no columns for ratings.
        order: int32 (num_epochs, num_samples), the place of each sample before the shuffle, counted
            from the client's first; no columns without a shuffle.
        width: number of items of a sample.
        per_interaction: number of samples of an interaction.
    """

    offsets: IndexArray
    user_offsets: IndexArray
    user: IndexArray
    item: IndexArray
    rating: Float32Array
    negatives: IndexArray
    order: Int32Array
    width: int
    per_interaction: int


class Shared(NamedTuple):
    """The versions of the shared parameters that the clients start from, not changed.

    Attributes:
        item: float32 (num_versions, num_items, d), item vectors.
        item_bias: float32 (num_versions, num_items).
        global_bias: float32 (num_versions,); zeros if the model has none.
        weight: float32 (num_versions, d); ones if the model has none.
        version: int64 (num_clients,), the version of each client.
    """

    item: Float32Array
    item_bias: Float32Array
    global_bias: Float32Array
    weight: Float32Array
    version: IndexArray


class Totals(NamedTuple):
    """Sums over clients of weight times update, changed in place; see `core.updates.UpdateSum`.

    Attributes:
        item: float64 (num_items, d).
        item_bias: float64 (num_items,).
        global_bias: float64 (1,).
        weight: float64 (d,).
        row_weight: float64 (num_items,).
    """

    item: Float64Array
    item_bias: Float64Array
    global_bias: Float64Array
    weight: Float64Array
    row_weight: Float64Array


class Outcomes(NamedTuple):
    """The results of each client, written by the kernel.

    Attributes:
        loss: float64 (num_clients,), mean loss of the samples.
        num_rows: int64 (num_clients,), number of touched item rows.
        is_valid: bool (num_clients,), whether the update is within the limits and in the sums.
    """

    loss: Float64Array
    num_rows: IndexArray
    is_valid: BoolArray

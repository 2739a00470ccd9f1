"""What the compiled loop works on: see `kernels` for the arithmetic."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

BCE, BPR, MSE = 0, 1, 2

Floats = NDArray[np.float32]
Index = NDArray[np.int64]


class Parameters(NamedTuple):
    """The parameters of a chunk of clients, changed in place; every array contiguous.

    Attributes:
        user: float32 (num_users, d), the vectors of all users.
        item: float32 (num_rows, d), the vectors of all touched rows.
        user_bias: float32 (num_users,); zero without biases of users.
        item_bias: float32 (num_rows,).
        global_bias: float32 (num_clients,), a copy per client; zero without.
        weight: float32 (num_clients, d), a copy per client; one without.
        user_steps: int64 (num_users,), after how many of its client's steps each row is right.
        item_steps: int64 (num_rows,).
    """

    user: Floats
    item: Floats
    user_bias: Floats
    item_bias: Floats
    global_bias: Floats
    weight: Floats
    user_steps: Index
    item_steps: Index


class Rests(NamedTuple):
    """What is added to gradients beside the pull; see `Correction`.

    Every array is shaped as in `Parameters`; of no rows where the parameter is left alone.

    Attributes:
        item: of `Parameters.item`.
        item_bias: of `Parameters.item_bias`.
        global_bias: of `Parameters.global_bias`.
        weight: of `Parameters.weight`.
    """

    item: Floats
    item_bias: Floats
    global_bias: Floats
    weight: Floats


class Rates(NamedTuple):
    """How to step.

    Attributes:
        loss: BCE, BPR or MSE.
        table: learning rate of rows.
        dense: learning rate of global bias and weights.
        shrink: what one step's weight decay leaves of a row, 1 - learning rate * weight decay.
        learns: whether user biases, the global bias and the weights learn.
        batch_size: samples a step.
        item_shrink: what one step's weight decay and correction leave of an item's row.
        global_pull: `Correction.factor` of the global bias.
        weight_pull: of the weights.
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

"""Compiled arithmetic of factor models; see `compiled` for what it computes and why.

score = global bias + user bias + item bias + sum over d of weight[d] * user[d] * item[d]

What the compiled loop works on: see `kernels` for the arithmetic.
"""

import math
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled

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


_ALMOST_TOO_LARGE = 1e200  # a float64 can still be doubled

# fastmath: the order of a sum is free, so that the compiler may use wide registers.
_compiled = partial(compiled, fastmath=True)


@_compiled
def train_epoch(
    p: Parameters,
    rests: Rests,
    rates: Rates,
    offsets: Index,
    user: Index,
    item: Index,
    target: Floats,
    num_steps: Index,
    loss: NDArray[np.float64],
) -> None:
    """Run one epoch of every client; `num_steps` and `loss` (per client) go on counting."""
    gradient = np.zeros_like(p.user)
    bias_gradient = np.zeros_like(p.user_bias)
    slope = np.empty(rates.batch_size, np.float32)
    _, biased, weighted = rates.learns
    factor = np.empty_like(p.user) if weighted else p.user
    for client in range(len(offsets) - 1):
        for start in range(offsets[client], offsets[client + 1], rates.batch_size):
            stop = min(start + rates.batch_size, offsets[client + 1])
            users, items, step = user[start:stop], item[start:stop], num_steps[client]
            if rates.shrink != 1.0:
                _shrink(p.user, p.user_bias, p.user_steps, users, step, rates.shrink)
            _drift_items(p, rests, rates, items, step)
            if weighted:
                _weigh(p.user, p.weight[client], users, factor)
            if rates.loss == BPR:
                _score_pairs(factor, p.item, p.item_bias, users, items, slope)
            else:
                offset = p.global_bias[client]
                _score(factor, p.item, p.user_bias, p.item_bias, offset, users, items, slope)
            loss[client] += _slopes(rates.loss, target[start:stop], slope)
            _add_gradients(p.item, users, items, slope, gradient, bias_gradient)
            _drift_items(p, rests, rates, items, step + 1)
            _step_items(factor, p.item, p.item_bias, users, items, slope, rates.table)
            _step_users(p, rests, rates, client, users, step, gradient, bias_gradient)
            if biased:
                # A pair's biases cancel out.
                rise = np.float32(0) if rates.loss == BPR else slope[: stop - start].sum()
                if len(rests.global_bias):
                    rise += rates.global_pull * p.global_bias[client] + rests.global_bias[client]
                p.global_bias[client] -= rates.dense * rise
            num_steps[client] += 1


@_compiled
def catch_up(
    p: Parameters, rests: Rests, rates: Rates, user_steps: Index, item_steps: Index
) -> None:
    """Give every row what it missed of its client's steps, of which there are (num_rows,) each."""
    if rates.shrink != 1.0:
        for row in range(len(user_steps)):
            _shrink_row(p.user, p.user_bias, p.user_steps, row, user_steps[row], rates.shrink)
    if len(rests.item):
        for row in range(len(item_steps)):
            _drift_row(p, rests, rates, row, item_steps[row])
    elif rates.shrink != 1.0:
        for row in range(len(item_steps)):
            _shrink_row(p.item, p.item_bias, p.item_steps, row, item_steps[row], rates.shrink)


@_compiled
def _drift_items(p: Parameters, rests: Rests, rates: Rates, items: Index, until: int) -> None:
    """Give the items of samples what they missed of the steps up to one."""
    # The two loops stand apart: a call that hands on tuples of arrays counts references to each of
    # them, which a row's arithmetic does not outweigh.
    for side in range(items.shape[1]):
        if len(rests.item):
            for row in items[:, side]:
                _drift_row(p, rests, rates, row, until)
        elif rates.shrink != 1.0:
            _shrink(p.item, p.item_bias, p.item_steps, items[:, side], until, rates.shrink)


@_compiled
def _drift_row(p: Parameters, rests: Rests, rates: Rates, row: int, until: int) -> None:
    """Give an item's row the weight decay and the correction of steps that it has not yet had.

    A step without samples turns a value into shrink * value - rate * rest, so that many of them
    are a power and a geometric sum.
    """
    missed = until - p.item_steps[row]
    if missed > 0:
        p.item_steps[row] = until
        left, shrink = rates.item_shrink**missed, rates.item_shrink
        times = float(missed) if shrink == 1.0 else (1.0 - left) / (1.0 - shrink)
        keep, back = np.float32(left), np.float32(times) * rates.table
        p.item_bias[row] = keep * p.item_bias[row] - back * rests.item_bias[row]
        for d in range(p.item.shape[1]):
            p.item[row, d] = keep * p.item[row, d] - back * rests.item[row, d]


@_compiled
def _shrink(
    table: Floats, bias: Floats, steps: Index, rows: Index, until: int, shrink: float
) -> None:
    for row in rows:
        _shrink_row(table, bias, steps, row, until, shrink)


@_compiled
def _shrink_row(
    table: Floats, bias: Floats, steps: Index, row: int, until: int, shrink: float
) -> None:
    """Give a row the weight decay of the steps that it has not yet had."""
    missed = until - steps[row]
    if missed > 0:
        steps[row] = until
        left = np.float32(shrink**missed)
        bias[row] *= left
        for d in range(table.shape[1]):
            table[row, d] *= left


@_compiled
def _weigh(user: Floats, weight: Floats, users: Index, factor: Floats) -> None:
    """Each user's vector times the client's weights: what an item's vector is multiplied with."""
    last = -1
    for u in users:
        if u != last:
            last = u
            for d in range(user.shape[1]):
                factor[u, d] = weight[d] * user[u, d]


@_compiled
def _score(
    user: Floats,
    item: Floats,
    user_bias: Floats,
    item_bias: Floats,
    offset: np.float32,
    users: Index,
    items: Index,
    score: Floats,
) -> None:
    """Scores of (user, item) samples."""
    for n in range(len(users)):
        u, i = users[n], items[n, 0]
        value = offset + user_bias[u] + item_bias[i]
        for d in range(user.shape[1]):
            value += user[u, d] * item[i, d]
        score[n] = value


@_compiled
def _score_pairs(
    user: Floats, item: Floats, item_bias: Floats, users: Index, items: Index, score: Floats
) -> None:
    """By how much each user's liked item leads the other; biases of users cancel."""
    for n in range(len(users)):
        u, i, j = users[n], items[n, 0], items[n, 1]
        value = item_bias[i] - item_bias[j]
        for d in range(user.shape[1]):
            value += user[u, d] * (item[i, d] - item[j, d])
        score[n] = value


@_compiled
def _slopes(kind: int, target: Floats, score: Floats) -> float:
    """Turn scores into derivatives of the mean loss, in place; returns the summed loss."""
    total, product, size = 0.0, 1.0, np.float32(len(target))
    for n in range(len(target)):
        z = score[n]
        if kind == MSE:
            error = z - target[n]
            total += error * error
            score[n] = 2 * error / size
        else:
            wanted = target[n] if kind == BCE else np.float32(1)
            small = np.exp(-abs(z))  # never overflows
            total += max(z, np.float32(0)) - z * wanted
            product *= 1.0 + small  # one logarithm for many samples
            if product > _ALMOST_TOO_LARGE:
                total += math.log(product)
                product = 1.0
            above = np.float32(1) / (np.float32(1) + small)
            probability = above if z >= 0 else np.float32(1) - above
            score[n] = (probability - wanted) / size
    return total + math.log(product)


@_compiled
def _add_gradients(
    item: Floats,
    users: Index,
    items: Index,
    slope: Floats,
    gradient: Floats,
    bias_gradient: Floats,
) -> None:
    """Gradients of the users, from the items before the step."""
    paired = items.shape[1] == 2  # noqa: PLR2004  # liked and not liked
    for n in range(len(users)):
        u, i, pull = users[n], items[n, 0], slope[n]
        bias_gradient[u] += pull
        for d in range(item.shape[1]):
            gradient[u, d] += pull * item[i, d]
        if paired:
            j = items[n, 1]
            for d in range(item.shape[1]):
                gradient[u, d] -= pull * item[j, d]


@_compiled
def _step_items(
    user: Floats,
    item: Floats,
    item_bias: Floats,
    users: Index,
    items: Index,
    slope: Floats,
    rate: np.float32,
) -> None:
    """Move the items, by the users before the step."""
    for side in range(items.shape[1]):
        sign = np.float32(1 - 2 * side)  # the liked item of a pair rises, the other falls
        for n in range(len(users)):
            u, i, pull = users[n], items[n, side], sign * rate * slope[n]
            item_bias[i] -= pull
            for d in range(item.shape[1]):
                item[i, d] -= pull * user[u, d]


@_compiled
def _step_users(
    p: Parameters,
    rests: Rests,
    rates: Rates,
    client: int,
    users: Index,
    step: int,
    gradient: Floats,
    bias_gradient: Floats,
) -> None:
    """Move each user of the batch once and the client's weights, and clear the gradients."""
    dim = p.user.shape[1]
    user_biased, _, weighted = rates.learns
    pull = np.zeros(dim, np.float32)
    for u in users:
        if p.user_steps[u] > step:
            continue
        for d in range(dim):
            pull[d] += p.user[u, d] * gradient[u, d]
        _shrink_row(p.user, p.user_bias, p.user_steps, u, step + 1, rates.shrink)
        for d in range(dim):
            p.user[u, d] -= rates.table * p.weight[client, d] * gradient[u, d]
            gradient[u, d] = 0
        if user_biased:
            p.user_bias[u] -= rates.table * bias_gradient[u]
        bias_gradient[u] = 0
    if weighted:
        for d in range(dim):
            if len(rests.weight):
                pull[d] += rates.weight_pull * p.weight[client, d] + rests.weight[client, d]
            p.weight[client, d] -= rates.dense * pull[d]

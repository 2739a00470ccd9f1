"""The compiled arithmetic of factor models; see `compiled` for the method.

score = global bias + user bias + item bias + sum over d of weight[d] * user[d] * item[d]
"""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.training.kernel_arguments import BCE, BPR, MSE, Offsets, Parameters, Rates

_MAX_PRODUCT = 1e200  # a float64 that can still be doubled

# fastmath: the compiler may reorder sums and use wide registers.
_compiled = partial(compiled, fastmath=True)


@_compiled
def train_epoch(
    p: Parameters,
    terms: Offsets,
    rates: Rates,
    offsets: IndexArray,
    user: IndexArray,
    item: IndexArray,
    target: Float32Array,
    num_steps: IndexArray,
    loss: NDArray[np.float64],
) -> None:
    """Run one epoch of every client.

    Args:
        p: the parameters, changed in place.
        terms: constant terms of the gradients, from a strategy.
        rates: constants of a step.
        offsets: int64 (num_clients + 1,), where each client's samples begin.
        user: int64 (n,), user rows.
        item: int64 (n, width), item rows.
        target: float32 (n,), labels or ratings.
        num_steps: int64 (num_clients,), increased by the steps of the epoch.
        loss: float64 (num_clients,), increased by the summed loss of the epoch.
    """
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
            _decay_items(p, terms, rates, items, step)
            if weighted:
                _weigh(p.user, p.weight[client], users, factor)
            if rates.loss == BPR:
                _score_pairs(factor, p.item, p.item_bias, users, items, slope)
            else:
                offset = p.global_bias[client]
                _score(factor, p.item, p.user_bias, p.item_bias, offset, users, items, slope)
            loss[client] += _slopes(rates.loss, target[start:stop], slope)
            _add_gradients(p.item, users, items, slope, gradient, bias_gradient)
            _decay_items(p, terms, rates, items, step + 1)
            _step_items(factor, p.item, p.item_bias, users, items, slope, rates.table)
            _step_users(p, terms, rates, client, users, step, gradient, bias_gradient)
            if biased:
                # The global bias cancels out in the score difference of a pair.
                bias_slope = np.float32(0) if rates.loss == BPR else slope[: stop - start].sum()
                if len(terms.global_bias):
                    bias_slope += (
                        rates.global_pull * p.global_bias[client] + terms.global_bias[client]
                    )
                p.global_bias[client] -= rates.dense * bias_slope
            num_steps[client] += 1


@_compiled
def catch_up(
    p: Parameters, terms: Offsets, rates: Rates, user_steps: IndexArray, item_steps: IndexArray
) -> None:
    """Apply to every row the weight decay and corrections of the steps that it missed.

    Args:
        p: the parameters, changed in place.
        terms: constant terms of the gradients, from a strategy.
        rates: constants of a step.
        user_steps: int64 (num_users,), number of steps of each row's client.
        item_steps: int64 (num_rows,), likewise.
    """
    if rates.shrink != 1.0:
        for row in range(len(user_steps)):
            _shrink_row(p.user, p.user_bias, p.user_steps, row, user_steps[row], rates.shrink)
    if len(terms.item):
        for row in range(len(item_steps)):
            _decay_row(p, terms, rates, row, item_steps[row])
    elif rates.shrink != 1.0:
        for row in range(len(item_steps)):
            _shrink_row(p.item, p.item_bias, p.item_steps, row, item_steps[row], rates.shrink)


@_compiled
def _decay_items(
    p: Parameters, terms: Offsets, rates: Rates, items: IndexArray, until: int
) -> None:
    """Apply to the items of samples the decay and corrections of missed steps before `until`."""
    # Two loops, because a call with tuples of arrays counts references to each array, which costs
    # more than the arithmetic of a row.
    for side in range(items.shape[1]):
        if len(terms.item):
            for row in items[:, side]:
                _decay_row(p, terms, rates, row, until)
        elif rates.shrink != 1.0:
            _shrink(p.item, p.item_bias, p.item_steps, items[:, side], until, rates.shrink)


@_compiled
def _decay_row(p: Parameters, terms: Offsets, rates: Rates, row: int, until: int) -> None:
    """Apply to an item's row the weight decay and the correction of the steps it missed.

    A step without samples turns a value into shrink * value - rate * offset, so n of them give
    shrink^n * value - rate * offset * (1 - shrink^n) / (1 - shrink), a geometric sum.
    """
    missed = until - p.item_steps[row]
    if missed > 0:
        p.item_steps[row] = until
        shrink = rates.item_shrink
        power = rates.item_shrink**missed
        geometric_sum = float(missed) if shrink == 1.0 else (1.0 - power) / (1.0 - shrink)
        keep, back = np.float32(power), np.float32(geometric_sum) * rates.table
        p.item_bias[row] = keep * p.item_bias[row] - back * terms.item_bias[row]
        for d in range(p.item.shape[1]):
            p.item[row, d] = keep * p.item[row, d] - back * terms.item[row, d]


@_compiled
def _shrink(
    table: Float32Array,
    bias: Float32Array,
    steps: IndexArray,
    rows: IndexArray,
    until: int,
    shrink: float,
) -> None:
    for row in rows:
        _shrink_row(table, bias, steps, row, until, shrink)


@_compiled
def _shrink_row(
    table: Float32Array, bias: Float32Array, steps: IndexArray, row: int, until: int, shrink: float
) -> None:
    """Apply to a row the weight decay of the steps it missed."""
    missed = until - steps[row]
    if missed > 0:
        steps[row] = until
        power = np.float32(shrink**missed)
        bias[row] *= power
        for d in range(table.shape[1]):
            table[row, d] *= power


@_compiled
def _weigh(
    user: Float32Array, weight: Float32Array, users: IndexArray, factor: Float32Array
) -> None:
    """The factors of the item vectors: each user's vector times the client's weights."""
    last = -1
    for u in users:
        if u != last:
            last = u
            for d in range(user.shape[1]):
                factor[u, d] = weight[d] * user[u, d]


@_compiled
def _score(
    user: Float32Array,
    item: Float32Array,
    user_bias: Float32Array,
    item_bias: Float32Array,
    offset: np.float32,
    users: IndexArray,
    items: IndexArray,
    score: Float32Array,
) -> None:
    """Scores of (user, item) samples, written to `score`, float32 (n,)."""
    for n in range(len(users)):
        u, i = users[n], items[n, 0]
        value = offset + user_bias[u] + item_bias[i]
        for d in range(user.shape[1]):
            value += user[u, d] * item[i, d]
        score[n] = value


@_compiled
def _score_pairs(
    user: Float32Array,
    item: Float32Array,
    item_bias: Float32Array,
    users: IndexArray,
    items: IndexArray,
    score: Float32Array,
) -> None:
    """Score differences of (user, positive, negative) samples; user biases cancel out."""
    for n in range(len(users)):
        u, i, j = users[n], items[n, 0], items[n, 1]
        value = item_bias[i] - item_bias[j]
        for d in range(user.shape[1]):
            value += user[u, d] * (item[i, d] - item[j, d])
        score[n] = value


@_compiled
def _slopes(kind: int, target: Float32Array, score: Float32Array) -> float:
    """Replace scores by the derivatives of the mean loss, in place; returns the summed loss."""
    total, product, size = 0.0, 1.0, np.float32(len(target))
    for n in range(len(target)):
        z = score[n]
        if kind == MSE:
            error = z - target[n]
            total += error * error
            score[n] = 2 * error / size
        else:
            label = target[n] if kind == BCE else np.float32(1)
            small = np.exp(-abs(z))  # never overflows
            total += max(z, np.float32(0)) - z * label
            product *= 1.0 + small  # one logarithm for many samples
            if product > _MAX_PRODUCT:
                total += math.log(product)
                product = 1.0
            above = np.float32(1) / (np.float32(1) + small)
            probability = above if z >= 0 else np.float32(1) - above
            score[n] = (probability - label) / size
    return total + math.log(product)


@_compiled
def _add_gradients(
    item: Float32Array,
    users: IndexArray,
    items: IndexArray,
    slope: Float32Array,
    gradient: Float32Array,
    bias_gradient: Float32Array,
) -> None:
    """Add the gradients of the users, computed from the items before the step."""
    paired = items.shape[1] == 2  # noqa: PLR2004  # positive and negative
    for n in range(len(users)):
        u, i, delta = users[n], items[n, 0], slope[n]
        bias_gradient[u] += delta
        for d in range(item.shape[1]):
            gradient[u, d] += delta * item[i, d]
        if paired:
            j = items[n, 1]
            for d in range(item.shape[1]):
                gradient[u, d] -= delta * item[j, d]


@_compiled
def _step_items(
    user: Float32Array,
    item: Float32Array,
    item_bias: Float32Array,
    users: IndexArray,
    items: IndexArray,
    slope: Float32Array,
    rate: np.float32,
) -> None:
    """Move the items along their gradients, computed from the users before the step."""
    for side in range(items.shape[1]):
        sign = np.float32(1 - 2 * side)  # the positive item of a pair rises, the negative one falls
        for n in range(len(users)):
            u, i, delta = users[n], items[n, side], sign * rate * slope[n]
            item_bias[i] -= delta
            for d in range(item.shape[1]):
                item[i, d] -= delta * user[u, d]


@_compiled
def _step_users(
    p: Parameters,
    terms: Offsets,
    rates: Rates,
    client: int,
    users: IndexArray,
    step: int,
    gradient: Float32Array,
    bias_gradient: Float32Array,
) -> None:
    """Move each user of the batch once, then the client's weights, and clear the gradients."""
    dim = p.user.shape[1]
    user_biased, _, weighted = rates.learns
    weight_gradient = np.zeros(dim, np.float32)
    for u in users:
        if p.user_steps[u] > step:
            continue
        for d in range(dim):
            weight_gradient[d] += p.user[u, d] * gradient[u, d]
        _shrink_row(p.user, p.user_bias, p.user_steps, u, step + 1, rates.shrink)
        for d in range(dim):
            p.user[u, d] -= rates.table * p.weight[client, d] * gradient[u, d]
            gradient[u, d] = 0
        if user_biased:
            p.user_bias[u] -= rates.table * bias_gradient[u]
        bias_gradient[u] = 0
    if weighted:
        for d in range(dim):
            if len(terms.weight):
                weight_gradient[d] += (
                    rates.weight_pull * p.weight[client, d] + terms.weight[client, d]
                )
            p.weight[client, d] -= rates.dense * weight_gradient[d]

"""The compiled arithmetic of factor models: the steps of one client.

score = global bias + user bias + item bias + sum over d of weight[d] * user[d] * item[d]

Weight decay and the terms of a strategy move every touched row at every step. Here a row receives
them for all missed steps when it is next used, so that a step costs as much as its batch and not
as the sub-model.
"""

import math
from functools import partial

import numpy as np

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.types import Float32Array
from fedrec_flower.training.kernel_arguments import (
    MSE,
    Int32Array,
    Offsets,
    Parameters,
    Rates,
    Work,
)

_PRODUCT = 512  # a product of as many numbers up to 2 is a finite float64

# The compiler may reorder sums and use wide registers. It may not assume that values are finite:
# a client that diverges must be found.
FAST = {"reassoc", "contract", "arcp", "nsz"}
_compiled = partial(compiled, fastmath=FAST)


@_compiled
def new_work(num_users: int, num_rows: int, batch_size: int, width: int, dim: int) -> Work:
    """Work arrays for clients of at most these sizes."""
    return Work(
        np.empty((batch_size, width), np.float32),
        np.empty((num_users, dim), np.float32),
        np.zeros((num_users, dim), np.float32),
        np.zeros(num_users, np.float32),
        np.zeros(num_users, np.int32),
        np.zeros(num_rows, np.int32),
    )


@_compiled
def train_epoch(
    p: Parameters,
    terms: Offsets,
    rates: Rates,
    users: Int32Array,
    items: Int32Array,
    target: Float32Array,
    step: int,
    work: Work,
) -> tuple[float, int]:
    """Run the steps of one epoch of one client.

    Args:
        p: the client's parameters, changed in place.
        terms: constant terms of the gradients, from a strategy.
        rates: constants of a step.
        users: int32 (n,), user rows, in the order of the samples.
        items: int32 (n, width), item rows.
        target: float32 (n,), labels or ratings.
        step: number of steps that the client took before.
        work: work arrays; the counts of steps are those of this client.

    Returns:
        The summed loss of the samples, and the number of steps that the client took by now.
    """
    total, num_samples = 0.0, len(target)
    for start in range(0, num_samples, rates.batch_size):
        stop = min(start + rates.batch_size, num_samples)
        batch_users, batch_items = users[start:stop], items[start:stop]
        slope = work.slope[: stop - start]
        _score(p, terms, rates, batch_users, batch_items, step, work)
        if slope.shape[1] > 1:
            total += _softmax(slope)
        elif rates.loss == MSE:
            total += _squared(slope, target[start:stop])
        else:
            total += _logistic(slope, target[start:stop])
        _add_gradients(p.item, batch_users, batch_items, slope, work)
        _step_items(p, terms, rates, batch_users, batch_items, slope, step, work)
        _step_users(p, terms, rates, batch_users, step, work)
        if rates.learns[1]:
            slope_sum = np.float32(0)
            for n in range(len(slope)):
                for side in range(slope.shape[1]):
                    slope_sum += slope[n, side]
            if len(terms.global_bias):
                slope_sum += rates.bias_pull * p.global_bias[0] + terms.global_bias[0]
            p.global_bias[0] -= rates.dense * slope_sum
        step += 1
    return total, step


@_compiled
def catch_up(p: Parameters, terms: Offsets, rates: Rates, num_steps: int, work: Work) -> None:
    """Apply to every row of a client the weight decay and corrections of the missed steps.

    Args:
        p: the client's parameters, changed in place.
        terms: constant terms of the gradients, from a strategy.
        rates: constants of a step.
        num_steps: number of the client's steps.
        work: the counts of steps that each row received.
    """
    decays = rates.shrink != 1.0
    for u in range(len(p.user) if decays else 0):
        _shrink(p.user, p.user_bias, work.user_steps, u, num_steps, rates.shrink)
    if len(terms.item):
        for i in range(len(p.item)):
            _correct(p, terms, rates, i, num_steps, work.item_steps)
    elif decays:
        for i in range(len(p.item)):
            _shrink(p.item, p.item_bias, work.item_steps, i, num_steps, rates.shrink)


@_compiled
def _score(
    p: Parameters,
    terms: Offsets,
    rates: Rates,
    users: Int32Array,
    items: Int32Array,
    step: int,
    work: Work,
) -> None:
    """Write the scores of a batch, after the rows that it uses received the steps they missed."""
    # Local names: access to a member of a tuple counts references, which costs more than a row.
    user, item, user_bias, item_bias = p.user, p.item, p.user_bias, p.item_bias
    score, factor, weight, global_bias = work.slope, work.factor, p.weight, p.global_bias[0]
    user_steps, item_steps, shrink = work.user_steps, work.item_steps, rates.shrink
    is_corrected, decays, weighted = len(terms.item) > 0, shrink != 1.0, rates.learns[2]
    moves_rows = is_corrected or decays
    dim, width, last = item.shape[1], items.shape[1], -1
    for n in range(len(users)):
        u = users[n]
        if u != last:
            last = u
            if decays and user_steps[u] < step:
                _shrink(user, user_bias, user_steps, u, step, shrink)
            for d in range(dim):
                factor[u, d] = user[u, d] * weight[0, d] if weighted else user[u, d]
        base = global_bias + user_bias[u]
        for side in range(width):
            i = items[n, side]
            if moves_rows and item_steps[i] < step:  # tested here: a call costs more than the row
                if is_corrected:
                    _correct(p, terms, rates, i, step, item_steps)
                else:
                    _shrink(item, item_bias, item_steps, i, step, shrink)
            product = np.float32(0)
            for d in range(dim):
                product += factor[u, d] * item[i, d]
            score[n, side] = base + item_bias[i] + product


@_compiled
def _logistic(score: Float32Array, target: Float32Array) -> float:
    """Replace scores (n, 1) by the derivatives of their binary cross-entropy; return the sum."""
    total, num_samples = 0.0, len(target)
    for start in range(0, num_samples, _PRODUCT):
        product = 1.0  # one logarithm for many samples
        for n in range(start, min(start + _PRODUCT, num_samples)):
            z, label = score[n, 0], target[n]
            small = np.exp(-abs(z))  # never overflows
            total += max(z, np.float32(0)) - z * label
            product *= 1.0 + small
            above = np.float32(1) / (np.float32(1) + small)
            score[n, 0] = (above if z >= 0 else small * above) - label
        total += math.log(product)
    return total


@_compiled
def _squared(score: Float32Array, target: Float32Array) -> float:
    """Replace scores (n, 1) by the derivatives of their squared errors; return the sum."""
    total = 0.0
    for n in range(len(target)):
        error = score[n, 0] - target[n]
        total += error * error
        score[n, 0] = 2 * error
    return total


@_compiled
def _softmax(score: Float32Array) -> float:
    """Replace scores (n, width) by the derivatives of the cross-entropy of the first items.

    Returns:
        The summed cross-entropy.
    """
    total = 0.0
    for n in range(len(score)):
        largest, first, exponentials = score[n].max(), score[n, 0], np.float32(0)
        for side in range(score.shape[1]):
            score[n, side] = np.exp(score[n, side] - largest)
            exponentials += score[n, side]
        others = np.float32(0)
        for side in range(1, score.shape[1]):
            score[n, side] /= exponentials
            others += score[n, side]
        score[n, 0] = -others  # biases that all items of a sample share do not move
        total += math.log(exponentials) + largest - first
    return total


@_compiled
def _add_gradients(
    item: Float32Array, users: Int32Array, items: Int32Array, slope: Float32Array, work: Work
) -> None:
    """Divide the derivatives by the size of the batch, and add up those of the user vectors."""
    gradient, bias_gradient, size = work.gradient, work.bias_gradient, np.float32(len(users))
    for n in range(len(users)):
        u = users[n]
        for side in range(items.shape[1]):
            i = items[n, side]
            delta = slope[n, side] / size
            slope[n, side] = delta
            bias_gradient[u] += delta
            for d in range(item.shape[1]):
                gradient[u, d] += delta * item[i, d]


@_compiled
def _step_items(
    p: Parameters,
    terms: Offsets,
    rates: Rates,
    users: Int32Array,
    items: Int32Array,
    slope: Float32Array,
    step: int,
    work: Work,
) -> None:
    """Move the items along their gradients, computed from the users before the step."""
    item, item_bias, factor, item_steps = p.item, p.item_bias, work.factor, work.item_steps
    is_corrected, decays, rate = len(terms.item) > 0, rates.shrink != 1.0, rates.table
    once = np.float32(rates.shrink)  # the row has received all earlier steps before it was scored
    dim, width = item.shape[1], items.shape[1]
    for n in range(len(users)):
        u = users[n]
        for side in range(width):
            i = items[n, side]
            keep = np.float32(1)
            if is_corrected:
                _correct(p, terms, rates, i, step + 1, item_steps)
            elif decays and item_steps[i] <= step:
                item_steps[i] = step + 1
                keep = once
            move = rate * slope[n, side]
            item_bias[i] = keep * item_bias[i] - move
            for d in range(dim):
                item[i, d] = keep * item[i, d] - move * factor[u, d]


@_compiled
def _step_users(
    p: Parameters, terms: Offsets, rates: Rates, users: Int32Array, step: int, work: Work
) -> None:
    """Move each user of the batch once, then the client's weights, and clear the gradients."""
    user, user_bias, weight = p.user, p.user_bias, p.weight
    gradient, bias_gradient, user_steps = work.gradient, work.bias_gradient, work.user_steps
    dim, rate, keep = user.shape[1], rates.table, np.float32(rates.shrink)
    user_biased, _, weighted = rates.learns
    weight_gradient = np.zeros(dim if weighted else 0, np.float32)
    for u in users:
        if user_steps[u] > step:
            continue
        user_steps[u] = step + 1
        for d in range(dim):
            scale = rate
            if weighted:
                weight_gradient[d] += user[u, d] * gradient[u, d]
                scale = rate * weight[0, d]
            user[u, d] = keep * user[u, d] - scale * gradient[u, d]
            gradient[u, d] = 0
        user_bias[u] *= keep
        if user_biased:
            user_bias[u] -= rate * bias_gradient[u]
        bias_gradient[u] = 0
    if weighted:
        for d in range(dim):
            if len(terms.weight):
                weight_gradient[d] += rates.weight_pull * weight[0, d] + terms.weight[0, d]
            weight[0, d] -= rates.dense * weight_gradient[d]


@_compiled
def _correct(
    p: Parameters, terms: Offsets, rates: Rates, row: int, until: int, steps: Int32Array
) -> None:
    """Apply to an item's row the weight decay and the correction of the steps it missed.

    A step without samples turns a value into shrink * value - rate * offset, so n of them give
    shrink^n * value - rate * offset * (1 - shrink^n) / (1 - shrink), a geometric sum.
    """
    missed = until - steps[row]
    if missed > 0:
        steps[row] = until
        shrink = rates.item_shrink
        power = shrink if missed == 1 else shrink**missed
        geometric_sum = float(missed) if shrink == 1.0 else (1.0 - power) / (1.0 - shrink)
        keep, back = np.float32(power), np.float32(geometric_sum) * rates.table
        p.item_bias[row] = keep * p.item_bias[row] - back * terms.item_bias[row]
        for d in range(p.item.shape[1]):
            p.item[row, d] = keep * p.item[row, d] - back * terms.item[row, d]


@_compiled
def _shrink(
    table: Float32Array, bias: Float32Array, steps: Int32Array, row: int, until: int, shrink: float
) -> None:
    """Apply to a row the weight decay of the steps it missed."""
    missed = until - steps[row]
    if missed > 0:
        steps[row] = until
        power = np.float32(shrink if missed == 1 else shrink**missed)
        bias[row] *= power
        for d in range(table.shape[1]):
            table[row, d] *= power

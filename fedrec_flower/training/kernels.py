"""Compiled arithmetic of matrix factorisation; see `compiled` for what it computes and why."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

BCE, BPR, MSE = 0, 1, 2

Floats = NDArray[np.float32]
Index = NDArray[np.int64]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(function: _Function) -> _Function:
    """Compile at first use and keep the machine code beside this file."""
    # fastmath: the order of a sum is free, so that the compiler may use wide registers.
    compile_it = numba.njit(cache=True, fastmath=True, error_model="numpy")
    return cast("_Function", compile_it(function))


class Parameters(NamedTuple):
    """The parameters of a chunk of clients, changed in place.

    Attributes:
        user: float32 (num_users, d), the vectors of all users.
        item: float32 (num_rows, d), the vectors of all touched rows.
        item_bias: float32 (num_rows,).
        user_bias: float32 (num_users,); zero without biases of users.
        global_bias: float32 (num_clients,), a copy per client; zero without.
        user_shrunk: int64 (num_users,), how many steps' weight decay each row has had.
        item_shrunk: int64 (num_rows,).
    """

    user: Floats
    item: Floats
    item_bias: Floats
    user_bias: Floats
    global_bias: Floats
    user_shrunk: Index
    item_shrunk: Index


class Rates(NamedTuple):
    """How to step.

    Attributes:
        loss: BCE, BPR or MSE.
        table: learning rate of rows.
        dense: learning rate of the global bias.
        shrink: what one step's weight decay leaves of a row, 1 - learning rate * weight decay.
        biased: whether users and the whole have biases that learn.
        batch_size: samples a step.
    """

    loss: int
    table: np.float32
    dense: np.float32
    shrink: float
    biased: bool
    batch_size: int


@_compiled
def train_epoch(
    p: Parameters,
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
    bias_gradient = np.zeros(len(p.user), np.float32)
    slope = np.empty(rates.batch_size, np.float32)
    for client in range(len(offsets) - 1):
        for start in range(offsets[client], offsets[client + 1], rates.batch_size):
            stop = min(start + rates.batch_size, offsets[client + 1])
            _forward(
                p, rates, client, start, stop, user, item, target, num_steps[client], slope,
                gradient, bias_gradient, loss,
            )  # fmt: skip
            _update(
                p, rates, client, start, stop, user, item, num_steps[client], slope, gradient,
                bias_gradient,
            )  # fmt: skip
            num_steps[client] += 1


@_compiled
def _forward(
    p: Parameters,
    rates: Rates,
    client: int,
    start: int,
    stop: int,
    user: Index,
    item: Index,
    target: Floats,
    step: int,
    slope: Floats,
    gradient: Floats,
    bias_gradient: Floats,
    loss: NDArray[np.float64],
) -> None:
    """Losses, their slopes, and the gradients of the users, from the values before the step."""
    size = np.float32(stop - start)
    dim = p.user.shape[1]
    for sample in range(start, stop):
        u, i = user[sample], item[sample, 0]
        _shrink(p.user, p.user_bias, p.user_shrunk, u, step, rates.shrink)
        _shrink(p.item, p.item_bias, p.item_shrunk, i, step, rates.shrink)
        score = p.item_bias[i]
        if rates.loss == BPR:
            j = item[sample, 1]
            _shrink(p.item, p.item_bias, p.item_shrunk, j, step, rates.shrink)
            score -= p.item_bias[j]
            for d in range(dim):
                score += p.user[u, d] * (p.item[i, d] - p.item[j, d])
        else:
            score += p.user_bias[u] + p.global_bias[client]
            for d in range(dim):
                score += p.user[u, d] * p.item[i, d]
        value, pull = _loss(rates.loss, score, target[sample])
        loss[client] += value
        pull /= size
        slope[sample - start] = pull
        bias_gradient[u] += pull
        if rates.loss == BPR:
            for d in range(dim):
                gradient[u, d] += pull * (p.item[i, d] - p.item[j, d])
        else:
            for d in range(dim):
                gradient[u, d] += pull * p.item[i, d]


@_compiled
def _loss(kind: int, score: np.float32, target: np.float32) -> tuple[np.float32, np.float32]:
    """The loss of one score, and its derivative."""
    if kind == MSE:
        error = score - target
        return error * error, np.float32(2) * error
    wanted = target if kind == BCE else np.float32(1)
    # log(1 + exp(-|x|)) never overflows.
    small = np.exp(-abs(score))
    value = max(score, np.float32(0)) - score * wanted + math.log1p(small)
    above = np.float32(1) / (np.float32(1) + small)
    probability = above if score >= 0 else np.float32(1) - above
    return value, probability - wanted


@_compiled
def _update(
    p: Parameters,
    rates: Rates,
    client: int,
    start: int,
    stop: int,
    user: Index,
    item: Index,
    step: int,
    slope: Floats,
    gradient: Floats,
    bias_gradient: Floats,
) -> None:
    """Move the rows: items first, because their gradients need the users before the step."""
    dim = p.user.shape[1]
    for sample in range(start, stop):
        u = user[sample]
        pull = rates.table * slope[sample - start]
        for side in range(item.shape[1]):
            i = item[sample, side]
            _shrink(p.item, p.item_bias, p.item_shrunk, i, step + 1, rates.shrink)
            p.item_bias[i] -= pull
            for d in range(dim):
                p.item[i, d] -= pull * p.user[u, d]
            pull = -pull
        if rates.biased:
            p.global_bias[client] -= rates.dense * slope[sample - start]
    for sample in range(start, stop):
        u = user[sample]
        if p.user_shrunk[u] == step + 1:
            continue
        _shrink(p.user, p.user_bias, p.user_shrunk, u, step + 1, rates.shrink)
        for d in range(dim):
            p.user[u, d] -= rates.table * gradient[u, d]
            gradient[u, d] = 0
        if rates.biased:
            p.user_bias[u] -= rates.table * bias_gradient[u]
        bias_gradient[u] = 0


@_compiled
def _shrink(
    table: Floats, bias: Floats, shrunk: Index, row: int, until: int, shrink: float
) -> None:
    """Give a row the weight decay of the steps it has not yet had."""
    missed = until - shrunk[row]
    if missed > 0:
        shrunk[row] = until
        if shrink != 1.0:
            left = np.float32(shrink**missed)
            for d in range(table.shape[1]):
                table[row, d] *= left
            bias[row] *= left


@_compiled
def catch_up(p: Parameters, rates: Rates, user_steps: Index, item_steps: Index) -> None:
    """Give every row the weight decay of all its client's steps."""
    for row in range(len(user_steps)):
        _shrink(p.user, p.user_bias, p.user_shrunk, row, user_steps[row], rates.shrink)
    for row in range(len(item_steps)):
        _shrink(p.item, p.item_bias, p.item_shrunk, row, item_steps[row], rates.shrink)

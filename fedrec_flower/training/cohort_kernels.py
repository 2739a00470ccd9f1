"""The compiled loops over clients: one adds updates to sums, one writes them client by client.

Both take one client after another from its draws to its result, so that the rows of its sub-model
stay in the CPU cache.
"""

from functools import partial

import numpy as np

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray
from fedrec_flower.training.kernel_arguments import (
    Clients,
    Int32Array,
    Offsets,
    Outcomes,
    Parameters,
    Rates,
    Shared,
    Totals,
)
from fedrec_flower.training.kernels import FAST, catch_up, new_work, train_epoch

_compiled = partial(compiled, fastmath=FAST)


@_compiled
def train_and_add(
    clients: Clients,
    shared: Shared,
    user: Float32Array,
    user_bias: Float32Array,
    rates: Rates,
    weights: Float64Array,
    max_value: float,
    totals: Totals,
    outcomes: Outcomes,
) -> None:
    """Train every client and add its weighted update to the sums.

    An update with a value that is not finite or beyond the limit is left out.

    Args:
        clients: data and draws of the clients.
        shared: the parameters they start from.
        user: float32 (num_users, d), the users' vectors, changed in place.
        user_bias: float32 (num_users,), changed in place.
        rates: constants of a step; the correction is a pull towards the received parameters.
        weights: float64 (num_clients,), weights in the sums.
        max_value: largest magnitude of a value of an update.
        totals: the sums.
        outcomes: the results of each client.
    """
    num_items, dim = shared.item.shape[1:]
    num_epochs = len(clients.negatives)
    sizes = np.diff(clients.offsets) * clients.per_interaction
    most_samples = max(sizes.max(), 1)
    most_rows = min(num_items, num_epochs * clients.width * most_samples)
    most_users = np.diff(clients.user_offsets).max()
    batch_size = min(rates.batch_size, most_samples)
    work = new_work(most_users, most_rows, batch_size, clients.width, dim)
    users = np.empty(most_samples, np.int32)
    items = np.empty((most_samples, clients.width), np.int32)
    places = np.empty((num_epochs, most_samples, clients.width), np.int32)
    target = np.empty(most_samples, np.float32)
    slot = np.full(num_items, -1, np.int32)
    rows = np.empty(most_rows, np.int32)
    item = np.empty((most_rows, dim), np.float32)
    item_bias = np.empty(most_rows, np.float32)
    pulled = rates.item_pull != 0
    offset = np.empty((most_rows if pulled else 0, dim), np.float32)
    offset_bias = np.empty(most_rows if pulled else 0, np.float32)
    global_bias, weight = np.empty(1, np.float32), np.empty((1, dim), np.float32)
    offset_global = np.empty(1 if rates.bias_pull != 0 else 0, np.float32)
    offset_weight = np.empty((1 if rates.weight_pull != 0 else 0, dim), np.float32)
    largest_given = _largest(shared)
    for client in range(len(sizes)):
        version = shared.version[client]
        first_user, last_user = clients.user_offsets[client : client + 2]
        num_samples, num_rows = sizes[client], 0
        for epoch in range(num_epochs):
            num_rows = _touch(clients, client, epoch, places[epoch], slot, rows, num_rows)
        p = Parameters(
            user[first_user:last_user],
            item[:num_rows],
            user_bias[first_user:last_user],
            item_bias[:num_rows],
            global_bias,
            weight,
        )
        num_pulled = num_rows if pulled else 0
        terms = Offsets(offset[:num_pulled], offset_bias[:num_pulled], offset_global, offset_weight)
        _start(p, rows[:num_rows], slot, shared, version)
        _pull(p, terms, rates)
        work.user_steps[: last_user - first_user] = 0
        work.item_steps[:num_rows] = 0
        loss, step = 0.0, 0
        for epoch in range(num_epochs):
            own = users[:num_samples], items[:num_samples], target[:num_samples]
            _arrange(clients, client, epoch, places[epoch], *own)
            epoch_loss, step = train_epoch(p, terms, rates, *own, step, work)
            loss += epoch_loss
        catch_up(p, terms, rates, step, work)
        outcomes.loss[client] = loss / max(num_samples * num_epochs, 1)
        outcomes.num_rows[client] = num_rows
        # No update exceeds the largest given value plus the largest value; NaN compares as false.
        largest = np.sqrt(_squares(p)) + largest_given[version]
        is_valid = largest < max_value and loss - loss == 0
        outcomes.is_valid[client] = is_valid
        if is_valid:
            _add(p, rows, weights[client], shared, version, totals)


@_compiled
def _touch(
    clients: Clients,
    client: int,
    epoch: int,
    places: Int32Array,
    slot: Int32Array,
    rows: Int32Array,
    num_rows: int,
) -> int:
    """Find the rows of the sub-model of each sample's items.

    Args:
        clients: data and draws.
        client: the client.
        epoch: the local epoch.
        places: int32 (num_samples, width), written, in the order before the shuffle.
        slot: int32 (num_items,), the row of each item, -1 for items that are not touched so far.
        rows: int32 (n,), the items touched so far; extended.
        num_rows: number of items touched so far.

    Returns:
        The number of touched items.
    """
    # Local names, as in `kernels`.
    item, negatives = clients.item, clients.negatives[epoch]
    width, repeats = clients.width, clients.per_interaction
    start, stop = clients.offsets[client], clients.offsets[client + 1]
    num_positives = stop - start
    num_negatives = repeats - 1 if width == 1 else repeats * (width - 1)
    first_negative = start * num_negatives
    for positive in range(num_positives):
        i = item[start + positive]
        row = slot[i]
        if row < 0:
            row = num_rows
            slot[i], rows[row] = row, i
            num_rows += 1
        for copy in range(1 if width == 1 else repeats):
            places[positive * repeats + copy if width > 1 else positive, 0] = row
    for negative in range(num_positives * num_negatives):
        i = negatives[first_negative + negative]
        row = slot[i]
        if row < 0:
            row = num_rows
            slot[i], rows[row] = row, i
            num_rows += 1
        if width == 1:
            places[num_positives + negative, 0] = row
        else:
            places[negative // (width - 1), 1 + negative % (width - 1)] = row
    return num_rows


@_compiled
def _arrange(
    clients: Clients,
    client: int,
    epoch: int,
    places: Int32Array,
    users: Int32Array,
    items: Int32Array,
    target: Float32Array,
) -> None:
    """Write a client's samples in the order in which it takes them.

    Args:
        clients: data and draws.
        client: the client.
        epoch: the local epoch.
        places: int32 (num_samples, width), rows of the items in the order before the shuffle.
        users: int32 (num_samples,), written: user rows.
        items: int32 (num_samples, width), written: item rows.
        target: float32 (num_samples,), written: labels or ratings.
    """
    order, rating, user = clients.order[epoch], clients.rating, clients.user
    repeats, width = clients.per_interaction, clients.width
    start, stop = clients.offsets[client], clients.offsets[client + 1]
    first_user, num_positives = clients.user_offsets[client], stop - start
    has_one_user = clients.user_offsets[client + 1] - first_user == 1
    is_shuffled, has_ratings = len(order) > 0, len(rating) > 0
    for n in range(len(users)):
        sample = order[start * repeats + n] if is_shuffled else n
        for side in range(width):
            items[n, side] = places[sample, side]
        is_positive = width > 1 or sample < num_positives
        target[n] = rating[start + sample] if has_ratings else np.float32(is_positive)
        if has_one_user:
            users[n] = 0
        elif width > 1:
            users[n] = user[start + sample // repeats] - first_user
        elif is_positive:
            users[n] = user[start + sample] - first_user
        else:
            users[n] = user[start + (sample - num_positives) // (repeats - 1)] - first_user


@_compiled
def _start(p: Parameters, rows: Int32Array, slot: Int32Array, shared: Shared, version: int) -> None:
    """Copy the parameters that a client starts from, and clear its slots."""
    item, item_bias = p.item, p.item_bias
    table, bias = shared.item[version], shared.item_bias[version]
    for row in range(len(rows)):
        i = rows[row]
        slot[i] = -1
        item_bias[row] = bias[i]
        for d in range(item.shape[1]):
            item[row, d] = table[i, d]
    p.global_bias[0] = shared.global_bias[version]
    p.weight[0] = shared.weight[version]


@_compiled
def _pull(p: Parameters, terms: Offsets, rates: Rates) -> None:
    """Write the constant terms of a pull towards the values that the client starts from."""
    item, bias, item_pull = terms.item, terms.item_bias, -rates.item_pull
    for row in range(len(item)):
        bias[row] = item_pull * p.item_bias[row]
        for d in range(item.shape[1]):
            item[row, d] = item_pull * p.item[row, d]
    terms.global_bias[:] = -rates.bias_pull * p.global_bias[0]
    terms.weight[:] = -rates.weight_pull * p.weight


@_compiled
def _largest(shared: Shared) -> Float32Array:
    """An upper bound of the magnitudes of the values of each version, float32 (num_versions,)."""
    largest = np.empty(len(shared.item), np.float32)
    for version in range(len(largest)):
        largest[version] = max(
            np.abs(shared.item[version]).max(),
            np.abs(shared.item_bias[version]).max(),
            np.abs(shared.weight[version]).max(),
            abs(shared.global_bias[version]),
        )
    return largest


@_compiled
def _squares(p: Parameters) -> float:
    """The sum of squares of a client's copies of shared parameters."""
    item, item_bias, total = p.item, p.item_bias, 0.0
    for row in range(len(item)):
        square = item_bias[row] * item_bias[row]
        for d in range(item.shape[1]):
            square += item[row, d] * item[row, d]
        total += square
    for value in p.weight[0]:
        total += value * value
    return total + float(p.global_bias[0] * p.global_bias[0])


@_compiled
def _add(
    p: Parameters,
    rows: Int32Array,
    weight: float,
    shared: Shared,
    version: int,
    totals: Totals,
) -> None:
    """Add a client's weighted update to the sums."""
    item, item_bias = p.item, p.item_bias
    table, bias = shared.item[version], shared.item_bias[version]
    item_total, bias_total, row_total = totals.item, totals.item_bias, totals.row_weight
    for row in range(len(item)):
        i = rows[row]
        row_total[i] += weight
        bias_total[i] += weight * (item_bias[row] - bias[i])
        for d in range(item.shape[1]):
            item_total[i, d] += weight * (item[row, d] - table[i, d])
    totals.global_bias[0] += weight * (p.global_bias[0] - shared.global_bias[version])
    for d in range(p.weight.shape[1]):
        totals.weight[d] += weight * (p.weight[0, d] - shared.weight[version, d])


@_compiled
def train_each(
    p: Parameters,
    terms: Offsets,
    rates: Rates,
    user_offsets: IndexArray,
    row_offsets: IndexArray,
    sample_offsets: IndexArray,
    users: IndexArray,
    items: IndexArray,
    target: Float32Array,
    loss: Float64Array,
) -> None:
    """Train every client; its parameters are its part of `p`, changed in place.

    Args:
        p: the parameters of all clients, one after another.
        terms: constant terms of the gradients, from a strategy, likewise.
        rates: constants of a step.
        user_offsets: int64 (num_clients + 1,), where each client's users begin.
        row_offsets: int64 (num_clients + 1,), where each client's item rows begin.
        sample_offsets: int64 (num_clients + 1,), where each client's samples of an epoch begin.
        users: int64 (num_epochs, n), user rows.
        items: int64 (num_epochs, n, width), item rows.
        target: float32 (num_epochs, n), labels or ratings.
        loss: float64 (num_clients,), written: the mean loss of the samples.
    """
    num_epochs = len(users)
    most_samples = max(np.diff(sample_offsets).max(), 1)
    batch_size = min(rates.batch_size, most_samples)
    most_users, most_rows = np.diff(user_offsets).max(), np.diff(row_offsets).max()
    width, dim = items.shape[2], p.item.shape[1]
    work = new_work(most_users, most_rows, batch_size, width, dim)
    client_users = np.empty(most_samples, np.int32)
    client_items = np.empty((most_samples, width), np.int32)
    for client in range(len(loss)):
        first_user, last_user = user_offsets[client], user_offsets[client + 1]
        first_row, last_row = row_offsets[client], row_offsets[client + 1]
        start, stop = sample_offsets[client], sample_offsets[client + 1]
        own = Parameters(
            p.user[first_user:last_user],
            p.item[first_row:last_row],
            p.user_bias[first_user:last_user],
            p.item_bias[first_row:last_row],
            p.global_bias[client : client + 1],
            p.weight[client : client + 1],
        )
        own_terms = Offsets(
            terms.item[first_row:last_row],
            terms.item_bias[first_row:last_row],
            terms.global_bias[client : client + 1],
            terms.weight[client : client + 1],
        )
        work.user_steps[: last_user - first_user] = 0
        work.item_steps[: last_row - first_row] = 0
        total, step, num_samples = 0.0, 0, stop - start
        for epoch in range(num_epochs):
            for n in range(num_samples):
                client_users[n] = users[epoch, start + n] - first_user
                for side in range(width):
                    client_items[n, side] = items[epoch, start + n, side] - first_row
            epoch_loss, step = train_epoch(
                own, own_terms, rates, client_users[:num_samples], client_items[:num_samples],
                target[epoch, start:stop], step, work,
            )  # fmt: skip
            total += epoch_loss
        catch_up(own, own_terms, rates, step, work)
        loss[client] = total / max(num_samples * num_epochs, 1)

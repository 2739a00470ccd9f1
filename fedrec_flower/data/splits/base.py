"""Interface of splits, the order of interactions, held-out fractions and the split's digest.

Order: sorting one packed int64 key is several times faster than `np.lexsort` of its parts: seconds
instead of half a minute at 25 million interactions.

Digest: two runs show by it that they were tested on the same interactions.
Byte form: one line per test interaction, `user TAB item TAB timestamp NEWLINE` in UTF-8, with the
original ids and the timestamp in whole seconds since 1970 (empty without timestamps; fractions of
a second are cut in the digest only). Lines ascend by user, then item, then timestamp; integer ids
by value, strings by code point. For integer ids, a shell can check it: `sort -n -k1,1 -k2,2 -k3,3
test.tsv | sha256sum`.
"""

from bisect import bisect_left
from hashlib import sha256
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.interactions import Interactions, Part, Split
from fedrec_flower.data.tie_breaking import tie_hash

# Candidates for training negatives: items not in train (honest), or items not in the whole data
# (legacy: leaks the held-out item). The split only stores this setting; training reads it.
Negatives = Literal["honest", "legacy"]


class Splitter(Protocol):
    """Interface of the classes in `conf/split/*.yaml`."""

    @property
    def negatives(self) -> Negatives:
        """The pool of training negatives; "legacy" is leaky."""
        ...

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction. The same seed gives the same labels in any file order."""
        ...


def require_length(interactions: Interactions, needed: int) -> None:
    """Check that the data set has at least `needed` interactions.

    Raises:
        DataError: if there are fewer.
    """
    if len(interactions) < needed:
        raise DataError(
            f"the dataset {interactions.name} has {len(interactions)} interactions and this split "
            f"needs {needed}: lower split.test_fraction or split.validation_fraction"
        )


def require_histories(interactions: Interactions, needed: int) -> None:
    """Check that every user has at least `needed` interactions.

    Raises:
        DataError: if a user has fewer. Names the first such user by its original id.
    """
    counts = np.bincount(interactions.user, minlength=interactions.num_users)
    short = np.flatnonzero(counts < needed)
    if len(short):
        user = short[0]
        raise DataError(
            f"user {interactions.user_ids[user]} has {counts[user]} interactions and this split "
            f"needs {needed} ({len(short)} of {interactions.num_users} users have fewer): "
            f"set dataset.min_interactions={needed}"
        )


def num_later(group: NDArray[np.int32], order: NDArray[np.intp]) -> NDArray[np.int64]:
    """Count the later interactions of the same group for each interaction.

    Args:
        group: int32 (n,), non-negative, such as the user codes.
        order: int64 (n,), the positions of the interactions, ordered by group and then within it.

    Returns:
        int64 (n,), 0 for the last interaction of each group.
    """
    ends = np.cumsum(np.bincount(group))
    later = np.empty(len(group), dtype=np.int64)
    later[order] = ends[group[order]] - 1 - np.arange(len(group))
    return later


def cut(
    later: NDArray[np.int64],
    num_validation: NDArray[np.int64] | int,
    num_test: NDArray[np.int64] | int,
) -> Split:
    """Hold out the end of each history: the last part is test, the part before is validation.

    Args:
        later: int64 (n,), from `num_later`.
        num_validation: length of the validation part: a scalar, or one per interaction (n,).
        num_test: length of the test part, likewise.

    Returns:
        The split, in the order of the interactions.
    """
    part = np.full(len(later), Part.TRAIN, dtype=np.int8)
    part[later < num_test + num_validation] = Part.VALIDATION
    part[later < num_test] = Part.TEST
    return Split(part)


Ties = Literal["hash", "file_order"]

_TOO_LARGE = 2**63  # for an int64 key


def require_times(interactions: Interactions) -> NDArray[np.int64]:
    """Return the timestamps, int64 (n,).

    Raises:
        DataError: if the data set has no timestamps.
    """
    if interactions.timestamp is None:
        raise DataError(
            f"the dataset {interactions.name} has no timestamps and this split orders by time: "
            "use split=random or name a timestamp column"
        )
    return interactions.timestamp


def order_in_time(interactions: Interactions, ties: Ties) -> NDArray[np.intp]:
    """Order the interactions by user, then time.

    Args:
        interactions: n interactions with timestamps.
        ties: order of one user's interactions at equal times: "hash", a fixed hash of the
            original ids; "file_order", the position in the interactions.

    Returns:
        int64 (n,), positions of the interactions.

    Raises:
        DataError: if there are no timestamps.
    """
    key = _user_and_time(interactions.user, require_times(interactions))
    order = np.argsort(key, kind="stable")
    if ties == "hash":
        ascending = key[order]
        equals_last = np.diff(ascending, prepend=-1) == 0
        tied = np.flatnonzero(equals_last | np.roll(equals_last, -1))
        rows = order[tied]
        order[tied] = rows[np.lexsort((tie_hash(interactions, rows), ascending[tied]))]
    return order


def order_at_random(
    interactions: Interactions, group: NDArray[np.int32], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Order the interactions by group, then at random, independent of the file order.

    Args:
        interactions: n interactions.
        group: int32 (n,), non-negative, such as the user codes.
        rng: random generator for the order within a group.

    Returns:
        int64 (n,), positions of the interactions.
    """
    pair = interactions.user.astype(np.int64) * interactions.num_items + interactions.item
    drawn = np.empty(len(pair), dtype=np.int64)
    drawn[np.argsort(pair, kind="stable")] = rng.permutation(len(pair))
    return np.argsort(group.astype(np.int64) * len(pair) + drawn)


def _user_and_time(user: NDArray[np.int32], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return one non-negative key (n,) that sorts by user and then time."""
    elapsed = times - times.min(initial=0)  # times before 1970 are negative
    span = int(elapsed.max(initial=0)) + 1
    if (int(user.max(initial=0)) + 1) * span > _TOO_LARGE:
        # Such as nanoseconds: number the distinct times instead.
        distinct, elapsed = np.unique(times, return_inverse=True)
        span = len(distinct)
    key: NDArray[np.int64] = user.astype(np.int64) * span + elapsed
    return key


_LEAST_TRAIN_FRACTION = 1e-6  # margin for the rounding of num_held_out
_LONGEST_HISTORY = 2**40


def check_fractions(validation: float, test: float) -> None:
    """Check that both are fractions and leave training data.

    Raises:
        ConfigError: if they are impossible, NaN included.
    """
    if not (validation >= 0 and test > 0 and validation + test <= 1 - _LEAST_TRAIN_FRACTION):
        raise ConfigError(
            f"split.validation_fraction={validation} and split.test_fraction={test} are "
            "impossible: test must be above 0, validation at least 0, their sum below 1"
        )


def num_held_out(lengths: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """Return the size of a fraction of each history, rounded down but at least one.

    Args:
        lengths: int64 (num_histories,), number of interactions of each history.
        fraction: in [0, 1); 0: no interaction is held out.

    Returns:
        int64 (num_histories,).
    """
    if fraction == 0:
        return np.zeros_like(lengths)
    # 0.29 * 100 is 28.999999999999996 in floating point and should be 29.
    whole: NDArray[np.float64] = np.floor(lengths * fraction + 1e-9)
    return np.maximum(whole.astype(np.int64), 1)


def least_history(validation: float, test: float) -> int:
    """Return the shortest history with at least one interaction in every part.

    Args:
        validation: fraction, in [0, 1).
        test: fraction, in (0, 1).

    Returns:
        The number of interactions; 3 for ordinary fractions.
    """

    def leaves_train(length: int) -> bool:
        lengths = np.array([length], dtype=np.int64)
        held_out = num_held_out(lengths, validation) + num_held_out(lengths, test)
        return bool(held_out[0] < length)

    # The condition is monotone in the length, so bisection finds the first length.
    return bisect_left(range(_LONGEST_HISTORY), x=True, key=leaves_train)


_CHUNK = 1_000_000  # lines in memory at once


def split_sha256(interactions: Interactions, split: Split) -> str:
    """Return the SHA-256 of the sorted test triples, in the byte form of the module docstring.

    Args:
        interactions: n interactions.
        split: labels of those n interactions.

    Returns:
        64 hexadecimal digits; the file order does not change them.
    """
    rows = split.rows(Part.TEST)
    user, item = interactions.user[rows], interactions.item[rows]
    ticks = interactions.timestamp
    times = None if ticks is None else ticks[rows] // interactions.ticks_per_second
    # Codes follow the sorted original ids, so sorting codes sorts ids.
    order = np.lexsort((item, user) if times is None else (times, item, user))
    digest = sha256()
    for start in range(0, len(order), _CHUNK):
        chunk = order[start : start + _CHUNK]
        users = interactions.user_ids[user[chunk]].tolist()
        items = interactions.item_ids[item[chunk]].tolist()
        stamps = [""] * len(chunk) if times is None else times[chunk].tolist()
        triples = zip(users, items, stamps, strict=True)
        digest.update("".join(f"{u}\t{i}\t{t}\n" for u, i, t in triples).encode())
    return digest.hexdigest()

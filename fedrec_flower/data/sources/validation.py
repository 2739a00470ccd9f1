"""Conversion of file rows to `Interactions`: all checks of the data, and the codes of ids."""

import logging
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.interactions import Ids, Interactions
from fedrec_flower.data.sources.base import Duplicates
from fedrec_flower.data.sources.readers import RawTable

_log = logging.getLogger("fedrec_flower")

# "007" is a name, not the number 7. More digits would overflow int64.
_WHOLE_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")

_LARGEST = float(np.finfo(np.float32).max)
_END_OF_TIME = 2**63  # of int64
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # per second
_FRACTIONS = (
    1_000_000,
    1_000,
    1,
)  # units of fractional numbers per second; the finest that fits is used

Mask = NDArray[np.bool_]


def encode(
    raw: RawTable,
    *,
    name: str,
    duplicates: Duplicates,
    min_interactions: int,
    users: RawTable | None = None,
    items: RawTable | None = None,
) -> Interactions:
    """Check interactions and replace ids by codes in the sorted order of the original ids.

    The catalogue consists of the items with at least one remaining interaction. The file order
    determines only the order of the rows.

    Args:
        raw: columns `user`, `item` and, optionally, `rating` (finite numbers) and `timestamp`
            (seconds since 1970, with or without fractions; or datetimes).
        name: the dataset's name.
        duplicates: handling of a repeated (user, item) pair: "error", or "last" to keep the
            latest by time, then by file order.
        min_interactions: users with fewer interactions after the removal of duplicates are
            dropped; the log counts them.
        users: attributes of users by their original id in column `user`.
        items: attributes of items by their original id in column `item`.

    Returns:
        Interactions in file order. Ids are int64 if all are whole numbers, else str.

    Raises:
        DataError: if a cell is missing, is not a finite number or is a negative time, a pair is
            repeated, or no interaction remains. Names file, column and line.
        ConfigError: if `min_interactions` is below 1.
    """
    if min_interactions < 1:
        raise ConfigError(f"dataset.min_interactions={min_interactions} must be 1 or more")
    if raw.frame.empty:
        raise DataError(f"{raw.file} holds no interaction: at least one row is needed")
    user, user_ids = _codes(raw, "user")
    item, item_ids = _codes(raw, "item")
    rating, (timestamp, ticks_per_second) = _ratings(raw), _timestamps(raw)
    kept = _met_once(raw, user, item, timestamp, duplicates)
    kept = _active(raw, user, kept, min_interactions)
    user, user_ids = _compact(user[kept], user_ids)
    item, item_ids = _compact(item[kept], item_ids)
    return Interactions(
        user,
        item,
        None if rating is None else rating[kept],
        None if timestamp is None else timestamp[kept],
        user_ids,
        item_ids,
        _attributes(users, "user", user_ids),
        _attributes(items, "item", item_ids),
        name,
        ticks_per_second,
    )


def encode_over_catalogue(items: RawTable, found: Interactions) -> Interactions:
    """Recode interactions over the catalogue of a table, including items without interactions.

    Args:
        items: attributes of items by their original id in column `item`.
        found: interactions over the items that occur in them.

    Returns:
        Interactions whose item codes are the sorted order of the table's ids.

    Raises:
        DataError: if an id is missing or repeated in the table, or an item is not in it.
    """
    ids = np.sort(_original_ids(items.frame["item"].dropna().to_numpy()))
    attributes = _attributes(items, "item", ids)  # checks for missing and repeated ids
    code_of = {text: code for code, text in enumerate(ids.astype(np.str_).tolist())}
    codes = np.array([code_of.get(text, -1) for text in found.item_ids.astype(np.str_).tolist()])
    if (codes < 0).any():
        unknown = found.item_ids[int((codes < 0).argmax())]
        raise DataError(
            f"{items.file} has no item {unknown}, which an interaction names: add it there, or set "
            "dataset.catalogue=interactions"
        )
    return replace(found, item=codes.astype(np.int32)[found.item], item_ids=ids, items=attributes)


def _codes(raw: RawTable, column: str) -> tuple[NDArray[np.int32], Ids]:
    """Return the code of each row's id, (n,), and the ids by code."""
    found, uniques = pd.factorize(raw.frame[column])
    if (found < 0).any():
        row = int((found < 0).argmax())
        raise raw.error(row, column, "is missing: fill it in or remove that line")
    ids = _original_ids(np.asarray(uniques))
    order = np.argsort(ids)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order))
    return rank[found], ids[order]


def _original_ids(values: NDArray[Any]) -> Ids:
    """Return ids as int64 if all are whole numbers, else as text."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "f" and bool((values == np.rint(values)).all()):
        return values.astype(np.int64)  # pandas makes floats of whole numbers with a missing cell
    texts = [str(value) for value in values]
    whole = all(_WHOLE_NUMBER.fullmatch(text) for text in texts)
    return np.array(texts, np.int64 if whole else np.str_)


def _numbers(raw: RawTable, column: str, values: "pd.Series[Any]") -> NDArray[Any]:
    """Return the values of a column as finite numbers, (n,)."""
    numbers = pd.to_numeric(values, errors="coerce").to_numpy()
    if numbers.dtype.kind in "iub":
        return numbers
    finite = np.abs(numbers) <= _LARGEST  # False for NaN
    if not finite.all():
        row = int((~finite).argmax())
        cell = raw.frame[column].iloc[row]
        problem = "is missing" if pd.isna(cell) else f"'{cell}' is not a finite number"
        fix = "give seconds since 1970" if column == "timestamp" else "correct or remove that line"
        raise raw.error(row, column, f"{problem}: {fix}")
    return numbers


def _ratings(raw: RawTable) -> NDArray[np.float32] | None:
    if "rating" not in raw.frame:
        return None
    return _numbers(raw, "rating", raw.frame["rating"]).astype(np.float32)


def _timestamps(raw: RawTable) -> tuple[NDArray[np.int64] | None, int]:
    """Return times since 1970, (n,), and the number of their units per second.

    Whole seconds stay whole seconds. Fractions order the interactions, so they are kept: datetimes
    in the unit of their column, numbers in microseconds, the precision of a float64 today.
    """
    if "timestamp" not in raw.frame:
        return None, 1
    times = raw.frame["timestamp"]
    if pd.api.types.is_datetime64_any_dtype(times):
        return _from_datetimes(raw, times)
    seconds = _numbers(raw, "timestamp", times)
    _require_times(raw, seconds)
    if seconds.dtype.kind != "f" or bool((seconds == np.floor(seconds)).all()):
        return seconds.astype(np.int64), 1
    latest = float(seconds.max())
    ticks = next(unit for unit in _FRACTIONS if latest * unit < _END_OF_TIME)
    return np.rint(seconds * ticks).astype(np.int64), ticks


def _from_datetimes(raw: RawTable, times: "pd.Series[Any]") -> tuple[NDArray[np.int64], int]:
    if times.isna().any():
        row = int(times.isna().to_numpy().argmax())
        raise raw.error(row, "timestamp", "is missing: give seconds since 1970")
    aware = pd.to_datetime(times, utc=True)
    ticks = _UNITS[aware.dt.unit]
    since: NDArray[np.int64] = np.asarray(aware.astype("int64"), np.int64)
    _require_times(raw, since // ticks)
    return (since, ticks) if (since % ticks).any() else (since // ticks, 1)


def _require_times(raw: RawTable, seconds: NDArray[Any]) -> None:
    outside = (seconds < 0) | (seconds >= _END_OF_TIME)
    if outside.any():
        row = int(outside.argmax())
        problem = f"{seconds[row]} is not a time: seconds since 1970 are expected"
        raise raw.error(row, "timestamp", problem)


def _met_once(
    raw: RawTable,
    user: NDArray[np.int32],
    item: NDArray[np.int32],
    timestamp: NDArray[np.int64] | None,
    duplicates: Duplicates,
) -> Mask:
    """Return a mask (n,) of the rows that stay, so that no (user, item) pair is repeated."""
    pair = user.astype(np.int64) * (int(item.max()) + 1) + item
    repeated = pd.Series(pair).duplicated().to_numpy()
    if not repeated.any():
        return ~repeated
    if duplicates == "error":
        row = int(repeated.argmax())
        which = f"{raw.frame['item'].iloc[row]} meets user {raw.frame['user'].iloc[row]}"
        fix = "remove that line or set dataset.duplicates=last"
        raise raw.error(row, "item", f"{which} a second time: {fix}")
    # Stable: rows of one pair and time keep their file order, so the last row is the latest.
    order = np.lexsort((pair,) if timestamp is None else (timestamp, pair))
    ends = np.append(pair[order[1:]] != pair[order[:-1]], True)
    kept = np.zeros(len(pair), np.bool_)
    kept[order[ends]] = True
    _log.warning("%s: dropped %d earlier rows of repeated pairs", raw.file, (~kept).sum())
    return kept


def _active(raw: RawTable, user: NDArray[np.int32], kept: Mask, least: int) -> Mask:
    """Return a mask (n,) of the kept rows of users with enough kept rows."""
    counts = np.bincount(user[kept])
    few = counts < least
    if few.all():
        raise DataError(
            f"{raw.file} has no user with {least} interactions, the most active has "
            f"{counts.max()}: lower dataset.min_interactions"
        )
    if few.any():
        lost = int(counts[few].sum())
        text = "%s: dropped %d users with fewer than %d interactions (%d rows)"
        _log.warning(text, raw.file, few.sum(), least, lost)
    return kept & ~few[user]


def _compact(codes: NDArray[np.int32], ids: Ids) -> tuple[NDArray[np.int32], Ids]:
    """Remove ids without rows and renumber the codes."""
    present = np.bincount(codes, minlength=len(ids)) > 0
    if present.all():
        return codes, ids
    return (np.cumsum(present) - 1).astype(np.int32)[codes], ids[present]


def _attributes(table: RawTable | None, key: str, ids: Ids) -> pd.DataFrame:
    """Return one row per id, in order; empty cells for ids that are not in the table."""
    if table is None:
        return pd.DataFrame(index=pd.RangeIndex(len(ids)))
    keys = table.frame[key]
    if keys.isna().any():
        row = int(keys.isna().to_numpy().argmax())
        raise table.error(row, key, "is missing: fill it in or remove that line")
    if keys.duplicated().any():
        row = int(keys.duplicated().to_numpy().argmax())
        problem = f"{keys.iloc[row]} is repeated: remove that line"
        raise table.error(row, key, problem)
    # As text: the same ids may be numbers in the interactions.
    known = table.frame.drop(columns=key).set_axis(pd.Index([str(k) for k in keys]), axis=0)
    texts = ids.astype(np.str_)
    absent = int((~np.isin(texts, known.index.to_numpy(np.str_))).sum())
    if absent:
        _log.warning("%s: %d %ss of the interactions are not in it", table.file, absent, key)
    return known.reindex(texts).reset_index(drop=True)

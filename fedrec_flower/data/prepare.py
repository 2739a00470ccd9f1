"""Writes the prepared dataset into the cache: once, atomically, and again if files changed."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.core.errors import DataError
from fedrec_flower.core.types import BoolArray, IndexArray
from fedrec_flower.data.features import item_features, user_features
from fedrec_flower.data.interactions import Ids, Interactions, Part, Partition, Split
from fedrec_flower.data.prepared import MANIFEST, Columns, Prepared, starts
from fedrec_flower.data.tie_breaking import tie_hash

_PRIVATE_FOLDER = 0o700
_FORMAT = 4  # raise it when the layout of the folder changes


def prepare(
    cache: Path,
    cache_key: Mapping[str, Any],
    build: Callable[[], tuple[Interactions, Split, Partition, str, pd.DataFrame]],
) -> Prepared:
    """Open the prepared dataset of a cache key; build it first if the cache does not have it.

    Args:
        cache: the cache folder; prepared datasets are in its subfolder `prepared`.
        cache_key: everything the result depends on, JSON-able; its hash is the folder's name.
        build: loads, splits and partitions the data; returns the three results, the digest of
            the split and the table of clients. Called only if the cache has no valid folder.

    Raises:
        DataError: if the cache folder cannot be written.
    """
    key = json.dumps([_FORMAT, cache_key], sort_keys=True)
    path = cache / "prepared" / sha256(key.encode()).hexdigest()[:20]
    if not _is_complete(path):
        built = build()
        try:
            _write_atomically(path, *built, key=key)
        except OSError as error:
            raise DataError(
                f"cannot write the prepared data below {cache}: {error.strerror}; "
                "free space or set dataset.cache_dir="
            ) from error
    return Prepared(path)


def reassign_training_users(
    data: Prepared, histories: Columns, in_training: BoolArray, path: Path
) -> Prepared:
    """Write the same dataset with other training users, split as by `split=cold_users`.

    Args:
        data: the prepared data; users, items and clients are unchanged.
        histories: the interactions of all users.
        in_training: bool (num_users,), the users whose histories are training data. For the
            other users the last interaction is test and the earlier ones are validation.
        path: the new folder.
    """
    shutil.copytree(data.path, path)
    held_out = histories.mask(~in_training)
    last = np.zeros(len(held_out.item), np.bool_)
    last[held_out.offsets[1:][np.diff(held_out.offsets) > 0] - 1] = True
    parts = {
        Part.TRAIN: histories.mask(in_training),
        Part.VALIDATION: _rows(held_out, ~last),
        Part.TEST: _rows(held_out, last),
    }
    for part, columns in parts.items():
        name = part.name.lower()
        _save(path, f"{name}_offsets", columns.offsets)
        _save(path, f"{name}_item", columns.item)
        if columns.rating is not None:
            _save(path, f"{name}_rating", columns.rating)
    return Prepared(path)


def _rows(columns: Columns, selected: BoolArray) -> Columns:
    """The selected rows; `selected` is bool (n,)."""
    per_user = np.bincount(columns.users()[selected], minlength=len(columns.offsets) - 1)
    rating = None if columns.rating is None else columns.rating[selected]
    return Columns(starts(per_user), columns.item[selected], rating)


def _is_complete(path: Path) -> bool:
    """Whether all files in the manifest are present and have the recorded digests."""
    try:
        digests = json.loads((path / MANIFEST).read_text())["sha256"]
        return all(_digest(path / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, KeyError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _write_atomically(
    path: Path,
    interactions: Interactions,
    split: Split,
    partition: Partition,
    digest: str,
    clients: pd.DataFrame,
    *,
    key: str,
) -> None:
    """Write into a temporary folder and rename it, so that no process sees incomplete files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        order = np.argsort(partition.client_of_user, kind="stable")  # position -> user code
        _write_columns(scratch, interactions, split, partition, order)
        schema = _write_features(scratch, interactions, order)
        interactions.items.to_parquet(scratch / "items.parquet")
        clients.to_parquet(scratch / "clients.parquet")
        meta = {
            "name": interactions.name,
            "num_users": interactions.num_users,
            "num_items": interactions.num_items,
            "num_clients": partition.num_clients,
            "rating_range": _rating_range(interactions, split),
            "split_sha256": digest,
            "timed": interactions.timestamp is not None,
            **schema,
        }
        digests = {file.name: _digest(file) for file in sorted(scratch.iterdir())}
        manifest = {"meta": meta, "sha256": digests, "cache_key": json.loads(key)}
        (scratch / MANIFEST).write_text(json.dumps(manifest, indent=1))
        try:
            scratch.rename(path)
        except OSError:
            # The folder exists: another run wrote it, or it is damaged. Equal keys give equal
            # bytes, so each file can be replaced, even while other processes read or repair it.
            path.chmod(_PRIVATE_FOLDER)
            for name in (*digests, MANIFEST):
                (scratch / name).replace(path / name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rating_range(interactions: Interactions, split: Split) -> tuple[float, float] | None:
    if interactions.rating is None:
        return None
    rating = interactions.rating[split.rows(Part.TRAIN)]
    return float(rating.min()), float(rating.max())


def _write_features(
    folder: Path, interactions: Interactions, order: IndexArray
) -> dict[str, list[str]]:
    """Write the item features and user attributes; returns the names of their columns."""
    items = item_features(interactions.items, interactions.num_items)
    users = user_features(interactions.users, interactions.num_users)
    _save(folder, "item_features", items.to_numpy(np.float32))
    _save(folder, "attributes", users.to_numpy(np.float32)[order])
    return {"item_features": [*map(str, items)], "attributes": [*map(str, users)]}


def _write_columns(
    folder: Path,
    interactions: Interactions,
    split: Split,
    partition: Partition,
    order: IndexArray,
) -> None:
    position = np.empty(interactions.num_users, np.int64)
    position[order] = np.arange(interactions.num_users)
    counts = np.bincount(partition.client_of_user, minlength=partition.num_clients)
    _save(folder, "user_codes", order.astype(np.int32))
    _save(folder, "client_offsets", starts(counts))
    _save(folder, "user_ids", _storable(interactions.user_ids))
    _save(folder, "item_ids", _storable(interactions.item_ids))
    timestamp = interactions.timestamp
    for part in Part:
        rows = split.rows(part)
        place = position[interactions.user[rows]]
        time = np.zeros(len(rows)) if timestamp is None else timestamp[rows]
        # Ties as in the splits: the order of item codes would reveal which items are popular.
        rows = rows[np.lexsort((tie_hash(interactions, rows), time, place))]
        per_user = np.bincount(place, minlength=interactions.num_users)
        name = part.name.lower()
        _save(folder, f"{name}_offsets", starts(per_user))
        _save(folder, f"{name}_item", interactions.item[rows])
        if interactions.rating is not None:
            _save(folder, f"{name}_rating", interactions.rating[rows])


def _save(folder: Path, name: str, array: NDArray[Any]) -> None:
    with (folder / f"{name}.npy").open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())


def _storable(ids: Ids) -> Ids:
    """Ids in a dtype that numpy can memory-map: integers are unchanged, others become text."""
    return ids if ids.dtype.kind in "iu" else ids.astype(np.str_)

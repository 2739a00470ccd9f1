"""Data sets from local files: CSV, TSV, Parquet or RecBole's atomic files.

Source of the atomic format: Zhao et al. 2021, RecBole (CIKM), section 3.2.

Columns of item and user tables become numbers if every cell is a number, else they stay text.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.data.interactions import Interactions
from fedrec_flower.data.sources.base import Duplicates, Fingerprint, cache_root, content_digest
from fedrec_flower.data.sources.readers import RawTable, column_names, is_atomic, read_columns
from fedrec_flower.data.sources.validation import encode, encode_over_catalogue

_ALWAYS_TEXT = {"item", "user", "title", "genres"}


def read_attributes(path: Path, columns: Mapping[str, str], separator: str | None) -> RawTable:
    """Read a whole table of attributes.

    Args:
        path: the table.
        columns: our name of a column -> its name in the file, without RecBole's types. Other
            columns keep their names.
        separator: text between two cells; None: by the file extension.

    Returns:
        The id and every other column. Columns of numbers are nullable numbers, unless a cell has a
        leading zero ("02139"): such cells are identifiers.

    Raises:
        DataError: if the file cannot be read or lacks one of the named columns.
    """
    others = {
        name: name
        for name in column_names(path, separator)
        if name not in columns.values() and name not in columns
    }
    raw = read_columns(path, {**columns, **others}, {}, separator)
    frame = raw.frame
    if "genres" in frame:
        genres = frame["genres"].fillna("").astype(str)
        # RecBole puts spaces between the words of a sequence.
        words_apart = is_atomic(path) and raw.columns["genres"].endswith("_seq")
        frame = frame.assign(genres=genres.str.replace(" ", "|") if words_apart else genres)
    numbers = {name: _natural(frame[name]) for name in raw.columns if name not in _ALWAYS_TEXT}
    return replace(raw, frame=frame.assign(**numbers))


def _natural(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """Convert text to numbers if every non-empty cell is a number."""
    is_text = column.dtype == object or isinstance(column.dtype, pd.StringDtype)
    if not is_text or column.isna().all():
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    has_words = (numbers.isna() & column.notna()).any()
    if has_words or column.str.match(r"-?0\d", na=False).any():
        return column
    return numbers.convert_dtypes()


_NEEDED = {"user", "item"}
_OPTIONAL = {"rating", "timestamp"}
_TYPES = {"rating": "float32", "timestamp": "int64"}


@dataclass(frozen=True, slots=True)
class FileDataset:
    """Interactions from local files.

    The format follows the file extension: .csv, .tsv, .parquet, or .inter with .item and .user
    (RecBole). Any other extension needs `separator`. Ids keep their spelling: "007" is not 7.

    Attributes:
        name: name of the data in tables and figures.
        path: file of the interactions.
        columns: names of `user`, `item`, `rating` and `timestamp` (seconds since 1970) in the file.
            The last two may be None: the data have no such column.
        items_path: file of item attributes with the same item column. None: no attributes, or for
            an .inter file the .item file in the same folder.
        item_columns: names of `title`, `year` and `genres` ("|" between genres) in the item table.
            None: the column keeps its name.
        catalogue: "interactions": the items with interactions; "items": all items of the item
            table, so that the ids reveal no interaction of a user.
        users_path: file of user attributes, likewise.
        separator: text between two cells of a text file; None: by the file extension.
        cache_dir: folder for prepared data; None is the user's cache folder.
        duplicates: handling of a repeated (user, item) pair: "error" or "last".
        min_interactions: users with fewer are dropped; the log counts them.
    """

    name: str
    path: str
    columns: Mapping[str, str | None]
    items_path: str | None
    item_columns: Mapping[str, str | None]
    catalogue: Literal["interactions", "items"]
    users_path: str | None
    separator: str | None
    cache_dir: str | None
    duplicates: Duplicates
    min_interactions: int

    def __post_init__(self) -> None:
        _check_words("columns", self.columns, _NEEDED | _OPTIONAL)
        _check_words("item_columns", self.item_columns, {"title", "year", "genres"})
        for word in sorted(_NEEDED):
            if not self.columns.get(word):
                raise ConfigError(f"dataset.columns.{word} is missing: name the {word} column")

        known = self.catalogue in ("interactions", "items")
        require(known, f"dataset.catalogue={self.catalogue} must be interactions or items")
        require(
            self.catalogue == "interactions" or self._items is not None,
            "dataset.catalogue=items needs a table of items: set dataset.items_path",
        )

    @property
    def lists_items(self) -> bool:
        """Whether the catalogue is independent of the interactions."""
        return self.catalogue == "items"

    @property
    def cache_path(self) -> Path:
        """The folder for prepared data; it need not exist yet."""
        return cache_root(self.cache_dir)

    def fingerprint(self) -> Fingerprint:
        """Return the values that determine the result of `load`.

        Raises:
            DataError: if a file is missing.
        """
        files = (self._interactions, self._items, self._users)
        return {
            "dataset": "FileDataset",
            "name": self.name,
            "files": "; ".join(f"{file}: {content_digest(file)}" for file in files if file),
            "columns": json.dumps(dict(self.columns), sort_keys=True),
            "item_columns": json.dumps(dict(self.item_columns), sort_keys=True),
            "catalogue": self.catalogue,
            "separator": self.separator,
            "duplicates": self.duplicates,
            "min_interactions": self.min_interactions,
        }

    def load(self) -> Interactions:
        """Read the files.

        Raises:
            DataError: if a file cannot be read or used. Names file, column and line.
            ConfigError: if the extension of a file is unknown and `separator` is None.
        """
        wanted = {ours: theirs for ours, theirs in self.columns.items() if theirs is not None}
        items = self._table(self._items, "item", self.item_columns)
        listed = items if self.lists_items else None
        found = encode(
            read_columns(self._interactions, wanted, _TYPES, self.separator),
            name=self.name,
            duplicates=self.duplicates,
            min_interactions=self.min_interactions,
            users=self._table(self._users, "user", {}),
            items=items if listed is None else None,
        )
        return found if listed is None else encode_over_catalogue(listed, found)

    @property
    def _interactions(self) -> Path:
        return Path(self.path).expanduser()

    @property
    def _items(self) -> Path | None:
        return self._companion(self.items_path, ".item")

    @property
    def _users(self) -> Path | None:
        return self._companion(self.users_path, ".user")

    def _companion(self, path: str | None, ending: str) -> Path | None:
        if path is not None:
            return Path(path).expanduser()
        neighbour = self._interactions.with_suffix(ending)
        return neighbour if is_atomic(self._interactions) and neighbour.exists() else None

    def _table(
        self, path: Path | None, key: str, renamed: Mapping[str, str | None]
    ) -> RawTable | None:
        if path is None:
            return None
        named = {ours: theirs for ours, theirs in renamed.items() if theirs is not None}
        return read_attributes(path, {key: str(self.columns[key]), **named}, self.separator)


def _check_words(option: str, configured: Mapping[str, str | None], allowed: set[str]) -> None:
    for word in configured:
        if word not in allowed:
            raise ConfigError(
                f"dataset.{option}.{word} is unknown: choose from {', '.join(sorted(allowed))}"
            )

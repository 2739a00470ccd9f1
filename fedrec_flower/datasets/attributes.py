"""Tables of items or users: text where text is meant, numbers where every cell is one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from fedrec_flower.datasets.formats import column_names, is_atomic, read_columns
from fedrec_flower.datasets.tables import RawTable

_ALWAYS_TEXT = {"item", "user", "title", "genres"}


def read_attributes(path: Path, columns: Mapping[str, str], separator: str | None) -> RawTable:
    """Read a whole table of attributes.

    Args:
        path: the table.
        columns: our words -> the file's, without RecBole's types; the other columns keep
            their names.
        separator: what stands between two cells; None goes by the ending.

    Returns:
        The id and every other column. Columns of numbers are nullable numbers, unless a leading
        zero ("02139") shows that they are not meant as numbers.

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
    """Text as numbers if every cell that is filled in is a number, else as it is."""
    is_text = column.dtype == object or isinstance(column.dtype, pd.StringDtype)
    if not is_text or column.isna().all():
        return column
    numbers = pd.to_numeric(column, errors="coerce")
    has_words = (numbers.isna() & column.notna()).any()
    if has_words or column.str.match(r"-?0\d", na=False).any():
        return column
    return numbers.convert_dtypes()

"""Which ending of a file means which format."""

from collections.abc import Mapping
from pathlib import Path

from fedrec_flower.datasets.delimited import DelimitedFile
from fedrec_flower.datasets.tables import RawTable, parquet_columns, read_parquet
from fedrec_flower.errors import ConfigError

_ATOMIC = {".inter", ".item", ".user"}
_PARQUET = {".parquet", ".pq"}
_SEPARATORS = {".csv": ",", ".tsv": "\t", **dict.fromkeys(_ATOMIC, "\t")}


def is_atomic(path: Path) -> bool:
    """Whether a file is one of RecBole's, whose header says `name:type`."""
    return path.suffix.lower() in _ATOMIC


def column_names(path: Path, separator: str | None) -> dict[str, str]:
    """The columns of a file: their names, without RecBole's types -> as the file has them.

    Args:
        path: the file.
        separator: what stands between two cells; None goes by the ending.

    Raises:
        DataError: if the file is empty or cannot be read.
        ConfigError: if its ending says nothing and `separator` is None.
    """
    if path.suffix.lower() in _PARQUET:
        return {name: name for name in parquet_columns(str(path))}
    names = _text(path, separator).header()
    return {_bare(name) if is_atomic(path) else name: name for name in names}


def read_columns(
    path: Path, columns: Mapping[str, str], types: Mapping[str, str], separator: str | None
) -> RawTable:
    """Read some columns of a file of any known format.

    Args:
        path: the file.
        columns: our word for each column wanted -> the file's, without RecBole's types.
        types: Arrow's name of each column's type, text where absent; Parquet knows its own.
        separator: what stands between two cells; None goes by the ending.

    Raises:
        DataError: if the file cannot be read or lacks a column.
        ConfigError: if its ending says nothing and `separator` is None.
    """
    written = column_names(path, separator)
    columns = {ours: written.get(theirs, theirs) for ours, theirs in columns.items()}
    if path.suffix.lower() in _PARQUET:
        return read_parquet(str(path), columns)
    return _text(path, separator).read(columns, types)


def _bare(name: str) -> str:
    """`user_id` of `user_id:token`."""
    return name.rpartition(":")[0] or name


def _text(path: Path, separator: str | None) -> DelimitedFile:
    separator = separator or _SEPARATORS.get(path.suffix.lower())
    if separator is None:
        endings = ", ".join(sorted({*_SEPARATORS, *_PARQUET}))
        raise ConfigError(
            f"{path} ends in none of {endings}: set dataset.separator to what is between its cells"
        )
    return DelimitedFile(
        str(path), lambda: path.open("rb"), separator, None, "utf-8", not is_atomic(path)
    )

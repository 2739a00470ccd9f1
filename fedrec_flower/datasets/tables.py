"""Tables as files hold them, and the way back from a row to its place in the file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import BadZipFile
from zlib import error as ZlibError  # noqa: N812 - it is a class, in spite of its name

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fedrec_flower.errors import DataError


@dataclass(frozen=True, slots=True)
class RawTable:
    """Rows as a file holds them, able to say where in the file each one stands.

    Attributes:
        frame: one row per record, in file order, with a RangeIndex; columns in our words.
        file: what to call the file in messages.
        columns: what the file calls each of our columns.
        place: gives the place of a row, such as "line 7" (1-based, header counted).
    """

    frame: pd.DataFrame
    file: str
    columns: Mapping[str, str]
    place: Callable[[int], str]

    def error(self, row: int, column: str, problem: str) -> DataError:
        """The complaint about one cell; `problem` says what is wrong and how to mend it."""
        return DataError(f"{self.file}, {self.place(row)}: {self.columns[column]} {problem}")


@contextmanager
def readable(file: str) -> Iterator[None]:
    """Turn whatever the system says about a missing or broken file into one sentence.

    Raises:
        DataError: if reading inside the block fails.
    """
    try:
        yield
    except (BadZipFile, EOFError, ZlibError) as error:
        raise DataError(f"{file} is damaged ({error}): fetch it again") from error
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{file} cannot be read ({reason}): correct it or its path") from error


def check_columns(file: str, columns: Mapping[str, str], present: Sequence[str]) -> None:
    """Check that a file has the columns wanted of it, each once.

    Args:
        file: what to call the file in messages.
        columns: our word for each column wanted -> the file's.
        present: the file's columns.

    Raises:
        DataError: naming the first column that is missing or doubled.
    """
    for ours, theirs in columns.items():
        if present.count(theirs) != 1:
            fault = "has no" if theirs not in present else "has more than one"
            raise DataError(
                f"{file} {fault} column {theirs!r}, wanted as {ours} (its columns: "
                f"{', '.join(present)}): correct the file or the option that names the column"
            )


def parquet_columns(path: str) -> tuple[str, ...]:
    """The columns of a Parquet file.

    Raises:
        DataError: if it is no sound Parquet file or cannot be read.
    """
    with _sound(path) as stream:
        return tuple(pq.read_schema(stream).names)


def read_parquet(path: str, columns: Mapping[str, str]) -> RawTable:
    """Read some columns of a Parquet file.

    Args:
        path: the file.
        columns: our word for each column wanted -> the file's.

    Raises:
        DataError: if a column is missing or the file is no sound Parquet file.
    """
    check_columns(path, columns, parquet_columns(path))
    with _sound(path) as stream:
        table = pq.read_table(stream, columns=list(columns.values()))
    return RawTable(to_frame(table, columns), path, columns, lambda row: f"row {row + 1}")


@contextmanager
def _sound(path: str) -> Iterator[IO[bytes]]:
    try:
        with readable(path), Path(path).open("rb") as stream:
            yield stream
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is no sound Parquet file ({error}): write it again") from error


def to_frame(table: "pa.Table", columns: Mapping[str, str]) -> pd.DataFrame:
    """Columns of an Arrow table, in our words and order.

    Args:
        table: an Arrow table with at least those columns.
        columns: our word for each column wanted -> the table's.
    """
    wanted = table.select(list(columns.values())).rename_columns(list(columns))
    frame: pd.DataFrame = wanted.to_pandas(split_blocks=True, self_destruct=True)
    return frame

"""Readers of delimited text, Parquet and RecBole files; errors name the line of a row.

Arrow reads a text file at once. Only after an error is the file read line by line, to find the
line.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile
from zlib import error as ZlibError  # noqa: N812 - it is a class, in spite of its name

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from fedrec_flower.core.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class RawTable:
    """Rows of a file with their positions in the file.

    Attributes:
        frame: one row per record, in file order, with a RangeIndex; columns have our names.
        file: name of the file in messages.
        columns: our name of a column -> its name in the file.
        place: returns the position of a row, such as "line 7" (1-based, header counted).
    """

    frame: pd.DataFrame
    file: str
    columns: Mapping[str, str]
    place: Callable[[int], str]

    def error(self, row: int, column: str, problem: str) -> DataError:
        """Return the error of one cell. `problem` names the fault and the fix."""
        return DataError(f"{self.file}, {self.place(row)}: {self.columns[column]} {problem}")


@contextmanager
def explain_read_errors(file: str) -> Iterator[None]:
    """Turn errors of a missing or damaged file into one sentence.

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
    """Check that a file has each wanted column exactly once.

    Args:
        file: name of the file in messages.
        columns: our name of each wanted column -> its name in the file.
        present: the file's columns.

    Raises:
        DataError: names the first column that is missing or repeated.
    """
    for ours, theirs in columns.items():
        if present.count(theirs) != 1:
            fault = "has no" if theirs not in present else "has more than one"
            raise DataError(
                f"{file} {fault} column {theirs!r}, wanted as {ours} (its columns: "
                f"{', '.join(present)}): correct the file or the option that names the column"
            )


def parquet_columns(path: str) -> tuple[str, ...]:
    """Return the columns of a Parquet file.

    Raises:
        DataError: if it is not a valid Parquet file or cannot be read.
    """
    with _open_parquet(path) as stream:
        return tuple(pq.read_schema(stream).names)


def read_parquet(path: str, columns: Mapping[str, str]) -> RawTable:
    """Read some columns of a Parquet file.

    Args:
        path: the file.
        columns: our name of each wanted column -> its name in the file.

    Raises:
        DataError: if a column is missing or the file is not a valid Parquet file.
    """
    check_columns(path, columns, parquet_columns(path))
    with _open_parquet(path) as stream:
        table = pq.read_table(stream, columns=list(columns.values()))
    return RawTable(to_frame(table, columns), path, columns, lambda row: f"row {row + 1}")


@contextmanager
def _open_parquet(path: str) -> Iterator[IO[bytes]]:
    try:
        with explain_read_errors(path), Path(path).open("rb") as stream:
            yield stream
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} is not a valid Parquet file ({error}): write it again") from error


def to_frame(table: "pa.Table", columns: Mapping[str, str]) -> pd.DataFrame:
    """Return columns of an Arrow table with our names, in our order.

    Args:
        table: an Arrow table with at least those columns.
        columns: our name of each wanted column -> its name in the table.
    """
    wanted = table.select(list(columns.values())).rename_columns(list(columns))
    frame: pd.DataFrame = wanted.to_pandas(split_blocks=True, self_destruct=True)
    return frame


_STAND_IN = b"\x1f"  # ASCII "unit separator", which text does not contain


@dataclass(frozen=True, slots=True)
class DelimitedFile:
    """A delimited text file. It can be opened repeatedly: finding a line needs a second pass.

    Attributes:
        file: name of the file in messages.
        open: opens the file for reading bytes.
        separator: text between two cells, one or more characters.
        names: columns from left to right; None: the first line has them.
        encoding: encoding of the text.
        quoted: whether a cell may be in double quotes.
    """

    file: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    separator: str
    names: tuple[str, ...] | None
    encoding: str
    quoted: bool

    def header(self) -> tuple[str, ...]:
        """Return the columns from left to right.

        Raises:
            DataError: if the file is empty or cannot be read.
        """
        if self.names is not None:
            return self.names
        with self._lines() as lines:
            _, first = next(lines, (0, ""))
        if not first:
            raise DataError(f"{self.file} is empty: a header and at least one row are needed")
        if self.quoted and len(self.separator) == 1:
            return tuple(next(csv.reader([first], delimiter=self.separator)))
        return tuple(first.split(self.separator))

    def read(self, columns: Mapping[str, str], types: Mapping[str, str]) -> RawTable:
        """Read some columns. Blank lines are skipped.

        Args:
            columns: our name of each wanted column -> its name in the file.
            types: Arrow's name of each column's type, text where absent. If a cell does not fit its
                type, all columns are returned as text, and the caller reports the cell.

        Raises:
            DataError: if a column is missing, a line has too few or too many cells, or the
                file cannot be read.
        """
        check_columns(self.file, columns, self.header())
        wanted = {their: types.get(our, "string") for our, their in columns.items()}
        try:
            table = self._parse(wanted)
        except pa.ArrowInvalid:
            table = self._parse_or_explain(dict.fromkeys(wanted, "string"))
        return RawTable(to_frame(table, columns), self.file, columns, self._place)

    def _parse_or_explain(self, types: Mapping[str, str]) -> Any:
        odd: list[Any] = []

        def note(row: Any) -> str:
            odd.append(row)
            return "error"

        try:
            return self._parse(types, note)
        except pa.ArrowInvalid as error:
            raise (self._odd_row(odd[0]) if odd else self._no_text(error)) from error

    def _odd_row(self, row: Any) -> DataError:
        return DataError(
            f"{self.file}, line {self._line(row.number - 1)}: {row.actual_columns} cells "
            f"instead of {row.expected_columns}: correct or remove that line"
        )

    def _no_text(self, error: Exception) -> DataError:
        with explain_read_errors(self.file), self.open() as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError:
                    where, what = f"{self.file}, line {number}", self.encoding
                    return DataError(f"{where} is not {what} text: save the file as {what}")
        reason = str(error).splitlines()[0]
        return DataError(f"{self.file} is not a text table ({reason}): correct it")

    def _parse(self, types: Mapping[str, str], note: Callable[[Any], str] | None = None) -> Any:
        with explain_read_errors(self.file), self.open() as stream:
            separator, source = self._single(stream)
            return pacsv.read_csv(
                source,
                # Arrow numbers rows only with one thread.
                pacsv.ReadOptions(
                    column_names=self.names, encoding=self.encoding, use_threads=note is None
                ),
                pacsv.ParseOptions(
                    delimiter=separator,
                    quote_char='"' if self.quoted else False,
                    invalid_row_handler=note,
                ),
                pacsv.ConvertOptions(
                    include_columns=list(types),
                    column_types={name: pa.type_for_alias(kind) for name, kind in types.items()},
                    null_values=[""],  # not "NA", which may be an id
                    strings_can_be_null=True,
                ),
            )

    def _single(self, stream: IO[bytes]) -> tuple[str, IO[bytes]]:
        """Return a separator of one character and the file with it: Arrow takes no longer one."""
        if len(self.separator) == 1:
            return self.separator, stream
        text = stream.read().replace(self.separator.encode(), _STAND_IN)
        return _STAND_IN.decode(), BytesIO(text)

    @contextmanager
    def _lines(self) -> Iterator[Iterator[tuple[int, str]]]:
        """Yield (1-based number, line) of the lines that are not blank."""
        encoding = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        with (
            explain_read_errors(self.file),
            self.open() as stream,
            TextIOWrapper(stream, encoding, errors="replace") as text,
        ):
            lines = (line.rstrip("\r\n") for line in text)
            yield ((number, line) for number, line in enumerate(lines, 1) if line)

    def _line(self, nth: int) -> int:
        with self._lines() as lines:
            number, _ = next(islice(lines, nth, None))
            return number

    def _place(self, row: int) -> str:
        return f"line {self._line(row + (self.names is None))}"


_ATOMIC = {".inter", ".item", ".user"}
_PARQUET = {".parquet", ".pq"}
_SEPARATORS = {".csv": ",", ".tsv": "\t", **dict.fromkeys(_ATOMIC, "\t")}


def is_atomic(path: Path) -> bool:
    """Return whether a file is an atomic file of RecBole, with the header `name:type`."""
    return path.suffix.lower() in _ATOMIC


def column_names(path: Path, separator: str | None) -> dict[str, str]:
    """Return the columns of a file: name without RecBole's type -> name in the file.

    Args:
        path: the file.
        separator: text between two cells; None: by the file extension.

    Raises:
        DataError: if the file is empty or cannot be read.
        ConfigError: if the file extension is unknown and `separator` is None.
    """
    if path.suffix.lower() in _PARQUET:
        return {name: name for name in parquet_columns(str(path))}
    names = _text(path, separator).header()
    return {_bare(name) if is_atomic(path) else name: name for name in names}


def read_columns(
    path: Path, columns: Mapping[str, str], types: Mapping[str, str], separator: str | None
) -> RawTable:
    """Read some columns of a file in any supported format.

    Args:
        path: the file.
        columns: our name of each wanted column -> its name in the file, without RecBole's types.
        types: Arrow's name of each column's type, text where absent; ignored for Parquet.
        separator: text between two cells; None: by the file extension.

    Raises:
        DataError: if the file cannot be read or lacks a column.
        ConfigError: if the file extension is unknown and `separator` is None.
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
            f"{path} ends in none of {endings}: set dataset.separator to the text between its cells"
        )
    return DelimitedFile(
        str(path), lambda: path.open("rb"), separator, None, "utf-8", not is_atomic(path)
    )

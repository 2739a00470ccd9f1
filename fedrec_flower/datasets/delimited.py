"""Text tables of any separator, read fast, and line by line only when a line is to blame."""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from itertools import islice
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pacsv

from fedrec_flower.datasets.tables import RawTable, check_columns, readable, to_frame
from fedrec_flower.errors import DataError

_STAND_IN = b"\x1f"  # ASCII "unit separator": no text holds it


@dataclass(frozen=True, slots=True)
class DelimitedFile:
    """A text table that can be opened again, because finding a line takes a second look.

    Attributes:
        file: what to call it in messages.
        open: gives its bytes from the start.
        separator: what stands between two cells, one or more characters.
        names: its columns from left to right; None where its first line says so.
        encoding: how its text is encoded.
        quoted: whether a cell may stand in double quotes.
    """

    file: str
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    separator: str
    names: tuple[str, ...] | None
    encoding: str
    quoted: bool

    def header(self) -> tuple[str, ...]:
        """Its columns from left to right.

        Raises:
            DataError: if it is empty or cannot be read.
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
        """Read some columns; a blank line is no row.

        Args:
            columns: our word for each column wanted -> the file's.
            types: Arrow's name of each column's type, text where absent. If any cell does not
                fit its type, all columns come as text: whoever uses the cell says where it is.

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
            f"{self.file}, line {self._line(row.number - 1)}: {row.actual_columns} cells stand "
            f"where {row.expected_columns} are expected: correct or remove that line"
        )

    def _no_text(self, error: Exception) -> DataError:
        with readable(self.file), self.open() as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode(self.encoding)
                except UnicodeDecodeError:
                    where, what = f"{self.file}, line {number}", self.encoding
                    return DataError(f"{where} is no {what} text: save the file as {what}")
        reason = str(error).splitlines()[0]
        return DataError(f"{self.file} is no table of text ({reason}): mend it")

    def _parse(self, types: Mapping[str, str], note: Callable[[Any], str] | None = None) -> Any:
        with readable(self.file), self.open() as stream:
            separator, source = self._single(stream)
            return pacsv.read_csv(
                source,
                # Rows are numbered only when one thread reads them.
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
                    null_values=[""],  # nothing else: "NA" may be somebody's id
                    strings_can_be_null=True,
                ),
            )

    def _single(self, stream: IO[bytes]) -> tuple[str, IO[bytes]]:
        """The file with a separator of one character, which is all that Arrow can take."""
        if len(self.separator) == 1:
            return self.separator, stream
        text = stream.read().replace(self.separator.encode(), _STAND_IN)
        return _STAND_IN.decode(), BytesIO(text)

    @contextmanager
    def _lines(self) -> Iterator[Iterator[tuple[int, str]]]:
        """Lines that are not blank, each after its 1-based number."""
        encoding = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        with (
            readable(self.file),
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

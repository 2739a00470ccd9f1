"""How GroupLens (and RecBole) write MovieLens down, and how each layout becomes the same table.

Source: the README of each release, https://grouplens.org/datasets/movielens/.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress

import pandas as pd

from fedrec_flower.datasets.delimited import DelimitedFile
from fedrec_flower.datasets.store import Store
from fedrec_flower.datasets.tables import RawTable

_FLAGS = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)  # the order of u.genre

_OCCUPATIONS = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)  # by the number that users.dat of ml-1m gives

# "Toy Story (1995)", "Death Note (2006-2007)", "The Time of the Great Giving (1995) (V)".
_TITLE = re.compile(r"(?P<title>.+?)\s*\((?P<year>\d{4})(?:[-\u2013]\d{0,4})?\)(?:\s*\(V\))?")


def _as_it_is(frame: pd.DataFrame) -> pd.DataFrame:
    return frame


@dataclass(frozen=True, slots=True)
class TextFile:
    """One file of a layout.

    Attributes:
        name: its name, whatever folder it is in.
        separator: what stands between two cells.
        columns: our word for each column used -> the file's.
        names: its columns from left to right; None where its first line says so.
        types: Arrow's name of each used column's type, text where absent.
        encoding: how its text is encoded.
        quoted: whether a cell may stand in double quotes.
        describe: turns the columns of the file into those of the result.
    """

    name: str
    separator: str
    columns: Mapping[str, str]
    names: tuple[str, ...] | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    encoding: str = "utf-8"
    quoted: bool = False
    describe: Callable[[pd.DataFrame], pd.DataFrame] = _as_it_is

    def read(self, store: Store) -> RawTable:
        """Read it from a store that has it.

        Raises:
            DataError: naming the file and the line that is at fault.
        """
        opener = partial(store.open, self.name)
        label = store.label(self.name)
        text = DelimitedFile(label, opener, self.separator, self.names, self.encoding, self.quoted)
        raw = text.read(self.columns, self.types)
        return replace(raw, frame=self.describe(raw.frame))


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a release; items and users are read where they are there.

    Attributes:
        ratings: who rated what, how and when.
        items: title, year and genres of the items.
        users: attributes of the users; None where the release has none.
    """

    ratings: TextFile
    items: TextFile
    users: TextFile | None = None

    @property
    def files(self) -> tuple[TextFile, ...]:
        """All of them."""
        return tuple(file for file in (self.ratings, self.items, self.users) if file)


def _described(
    item: "pd.Series[str]", titles: Iterable[str], genres: Iterable[Iterable[str]]
) -> pd.DataFrame:
    """Titles as MovieLens writes them and genres in any order, as columns in our words."""
    matches = [(_TITLE.fullmatch(title.strip()), title) for title in titles]
    bare = [match["title"] if match else title for match, title in matches]
    years = [int(match["year"]) if match else pd.NA for match, _ in matches]
    return pd.DataFrame(
        {
            "item": item,
            "title": [" ".join(title.split()) for title in bare],
            "year": pd.array(years, "Int64"),
            "genres": ["|".join(sorted(of_one)) for of_one in genres],
        }
    )


def _from_flags(frame: pd.DataFrame) -> pd.DataFrame:
    flags = (frame[list(_FLAGS)] == "1").to_numpy()
    genres = [compress(_FLAGS, row) for row in flags]
    return _described(frame["item"], frame["title"].fillna(""), genres)


def _from_list(frame: pd.DataFrame) -> pd.DataFrame:
    lists = frame["genres"].fillna("").replace("(no genres listed)", "")
    genres = [text.split("|") for text in lists]
    return _described(frame["item"], frame["title"].fillna(""), genres)


def _from_recbole(frame: pd.DataFrame) -> pd.DataFrame:
    # RecBole took the last brackets of a title for the year: put them back and read them again.
    titles = frame["title"] + " (" + frame["year"] + ")"
    # It also misspells the one item whose title nobody knows.
    titles = titles.replace("unkonwn (unkonwn)", "unknown")
    return _described(frame["item"], titles, [text.split() for text in frame["genres"]])


def _with_occupation_names(frame: pd.DataFrame) -> pd.DataFrame:
    names = {str(number): name for number, name in enumerate(_OCCUPATIONS)}
    return frame.assign(occupation=[names.get(str(x), x) for x in frame["occupation"]])


def _same(*columns: str) -> dict[str, str]:
    """Columns that a file without header gets our own words for."""
    return dict(zip(columns, columns, strict=True))


_COLUMNS = ("user", "item", "rating", "timestamp")
_TYPES = {"user": "int32", "item": "int32", "rating": "float32", "timestamp": "int64"}
_USER = ("user", "age", "gender", "occupation", "zip_code")

U_DATA = Layout(
    TextFile("u.data", "\t", _same(*_COLUMNS), _COLUMNS, _TYPES),
    TextFile(
        "u.item",
        "|",
        _same("item", "title", *_FLAGS),
        ("item", "title", "release_date", "video_release_date", "url", *_FLAGS),
        encoding="latin-1",
        describe=_from_flags,
    ),
    TextFile("u.user", "|", _same(*_USER), _USER, {"age": "int64"}),
)

RECBOLE = Layout(
    TextFile(
        "ml-100k.inter",
        "\t",
        {
            "user": "user_id:token",
            "item": "item_id:token",
            "rating": "rating:float",
            "timestamp": "timestamp:float",
        },
        types=_TYPES,
    ),
    TextFile(
        "ml-100k.item",
        "\t",
        {
            "item": "item_id:token",
            "title": "movie_title:token_seq",
            "year": "release_year:token",
            "genres": "class:token_seq",
        },
        describe=_from_recbole,
    ),
    TextFile(
        "ml-100k.user",
        "\t",
        {
            "user": "user_id:token",
            "age": "age:token",
            "gender": "gender:token",
            "occupation": "occupation:token",
            "zip_code": "zip_code:token",
        },
        types={"age": "int64"},
    ),
)

_DAT_RATINGS = TextFile("ratings.dat", "::", _same(*_COLUMNS), _COLUMNS, _TYPES)
_DAT_ITEMS = TextFile(
    "movies.dat",
    "::",
    _same("item", "title", "genres"),
    ("item", "title", "genres"),
    describe=_from_list,
)

DAT = Layout(_DAT_RATINGS, _DAT_ITEMS)

DAT_WITH_USERS = Layout(
    _DAT_RATINGS,
    replace(_DAT_ITEMS, encoding="latin-1"),
    TextFile(
        "users.dat",
        "::",
        _same(*_USER),
        ("user", "gender", "age", "occupation", "zip_code"),
        {"age": "int64"},  # the youngest of the age group: 1, 18, 25, 35, 45, 50, 56
        describe=_with_occupation_names,
    ),
)

CSV = Layout(
    TextFile(
        "ratings.csv",
        ",",
        {"user": "userId", "item": "movieId", "rating": "rating", "timestamp": "timestamp"},
        types=_TYPES,
        quoted=True,
    ),
    TextFile(
        "movies.csv",
        ",",
        {"item": "movieId", "title": "title", "genres": "genres"},
        quoted=True,
        describe=_from_list,
    ),
)

"""The MovieLens releases: their file layouts, published figures and downloads.

A release comes from its publisher, from a copy, or from a local folder. The licence forbids
redistribution, so this repository contains no row of them.

Source: Harper & Konstan 2015, The MovieLens Datasets: History and Context, ACM TiiS 5(4); the
README and the .md5 file of each release, https://grouplens.org/datasets/movielens/.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Final

import pandas as pd

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.interactions import Interactions
from fedrec_flower.data.sources.base import Duplicates, Fingerprint, cache_root
from fedrec_flower.data.sources.download import (
    Source,
    Store,
    fetch_first_available,
    fetch_url,
    fetch_with_pip,
    open_store,
)
from fedrec_flower.data.sources.readers import DelimitedFile, RawTable
from fedrec_flower.data.sources.validation import encode

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
        name: file name without folders.
        separator: text between two cells.
        columns: our name of each used column -> its name in the file.
        names: columns from left to right; None: the first line has them.
        types: Arrow's name of each used column's type, text where absent.
        encoding: encoding of the text.
        quoted: whether a cell may be in double quotes.
        describe: converts the columns of the file to those of the result.
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
        """Read the file from a store that has it.

        Raises:
            DataError: names the file and the line.
        """
        opener = partial(store.open, self.name)
        label = store.label(self.name)
        text = DelimitedFile(label, opener, self.separator, self.names, self.encoding, self.quoted)
        raw = text.read(self.columns, self.types)
        return replace(raw, frame=self.describe(raw.frame))


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of a release. Tables of items and users are read if they exist.

    Attributes:
        ratings: user, item, rating and time.
        items: title, year and genres of the items.
        users: attributes of the users; None if the release has none.
    """

    ratings: TextFile
    items: TextFile
    users: TextFile | None = None

    @property
    def files(self) -> tuple[TextFile, ...]:
        """All files of the layout."""
        return tuple(file for file in (self.ratings, self.items, self.users) if file)


def _described(
    item: "pd.Series[str]", titles: Iterable[str], genres: Iterable[Iterable[str]]
) -> pd.DataFrame:
    """Convert MovieLens titles and lists of genres to the columns item, title, year, genres."""
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
    # RecBole removed the last brackets of a title as the year: restore them and parse again.
    titles = frame["title"] + " (" + frame["year"] + ")"
    # It also misspells the one item without a known title.
    titles = titles.replace("unkonwn (unkonwn)", "unknown")
    return _described(frame["item"], titles, [text.split() for text in frame["genres"]])


def _with_occupation_names(frame: pd.DataFrame) -> pd.DataFrame:
    names = {str(number): name for number, name in enumerate(_OCCUPATIONS)}
    return frame.assign(occupation=[names.get(str(x), x) for x in frame["occupation"]])


def _same(*columns: str) -> dict[str, str]:
    """Return the identity mapping of columns, for a file without header."""
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


_PUBLISHER: Final = "https://files.grouplens.org/datasets/movielens"

# RecBole's wheel carries the ratings of ml-100k in the same order, and the same tables.
_RECBOLE_WHEEL: Final = Source(
    "recbole-1.2.1-py3-none-any.whl",
    "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    partial(fetch_with_pip, "recbole==1.2.1"),
)


@dataclass(frozen=True, slots=True)
class Release:
    """One release.

    Attributes:
        layouts: possible file layouts, the publisher's first.
        num_users: number of users.
        num_interactions: number of ratings.
        digest: checksum of the publisher's zip; None if the publisher may replace the zip.
        mirrors: other sources of the same data.
    """

    layouts: tuple[Layout, ...]
    num_users: int
    num_interactions: int
    digest: str | None
    mirrors: tuple[Source, ...] = ()


RELEASES: Final[Mapping[str, Release]] = {
    "ml-100k": Release(
        (U_DATA, RECBOLE),
        943,
        100_000,
        "md5:0e33842e24a9c977be4e0107933c0723",
        (_RECBOLE_WHEEL,),
    ),
    "ml-1m": Release((DAT_WITH_USERS,), 6_040, 1_000_209, "md5:c4d9eecfca2ab87c1945afe126590906"),
    "ml-10m": Release((DAT,), 69_878, 10_000_054, "md5:ce571fd55effeba0271552578f2648bd"),
    "ml-20m": Release((CSV,), 138_493, 20_000_263, "md5:cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-25m": Release((CSV,), 162_541, 25_000_095, "md5:6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-32m": Release((CSV,), 200_948, 32_000_204, "md5:d472be332d4daa821edc399621853b57"),
    "ml-latest-small": Release((CSV,), 610, 100_836, None),  # the edition of September 2018
}


def fetch_release(name: str, folder: Path) -> Path:
    """Return the archive of a release, from the folder or else from a download.

    Args:
        name: a key of `RELEASES`.
        folder: folder of downloads.

    Returns:
        The path of a verified archive.

    Raises:
        DataError: if no source can be reached or the folder cannot be used.
    """
    release = RELEASES[name]
    address = f"{_PUBLISHER}/{name}.zip"
    published = Source(f"{name}.zip", release.digest, partial(fetch_url, address))
    advice = (
        f"get {address} on a machine with internet access "
        "and set dataset.path=<that zip, or the folder it unpacks to>"
    )
    return fetch_first_available((published, *release.mirrors), folder, advice)


@dataclass(frozen=True, slots=True)
class MovieLens:
    """One release of MovieLens. The catalogue consists of the rated items.

    Users have `age`, `gender`, `occupation` and `zip_code` in ml-100k and ml-1m. Items have
    `title` (without the year), `year` and `genres`, sorted, "" where the release lists none.

    Attributes:
        name: a release, such as "ml-100k".
        path: a folder or zip of that release; None: it is downloaded into the cache.
        cache_dir: folder for downloads and prepared data; None is the user's cache folder.
        duplicates: handling of a repeated (user, item) pair (no release has one): "error" or
            "last".
        min_interactions: users with fewer are dropped; the log counts them.
    """

    name: str
    path: str | None
    cache_dir: str | None
    duplicates: Duplicates
    min_interactions: int

    def __post_init__(self) -> None:
        if self.name not in RELEASES:
            raise ConfigError(
                f"dataset.name={self.name} is not a release of MovieLens: "
                f"choose from {', '.join(RELEASES)}"
            )

    @property
    def cache_path(self) -> Path:
        """The folder for downloads and prepared data; it need not exist yet."""
        return cache_root(self.cache_dir)

    def fingerprint(self) -> Fingerprint:
        """Return the values that determine the result of `load`.

        Raises:
            DataError: if `path` is missing.
        """
        published = self._release.digest or f"{self._release.num_interactions} ratings"
        return {
            "dataset": "MovieLens",
            "name": self.name,
            "path": self.path,
            "files": published if self.path is None else self._store(self.path).digest(),
            "duplicates": self.duplicates,
            "min_interactions": self.min_interactions,
        }

    def load(self) -> Interactions:
        """Read the release. It is downloaded first if necessary.

        Raises:
            DataError: if it cannot be found or used. Names file, column and line.
        """
        path = self.path or fetch_release(self.name, self.cache_path / "downloads")
        store = self._store(path)
        layout = self._layout(store)
        ratings = layout.ratings.read(store)
        if self.path is None:
            self._check_facts(ratings)
        return encode(
            ratings,
            name=self.name,
            duplicates=self.duplicates,
            min_interactions=self.min_interactions,
            users=_read_if_present(layout.users, store),
            items=_read_if_present(layout.items, store),
        )

    @property
    def _release(self) -> Release:
        return RELEASES[self.name]

    def _store(self, path: str | Path) -> Store:
        wanted = {file.name for layout in self._release.layouts for file in layout.files}
        return open_store(Path(path).expanduser(), wanted)

    def _layout(self, store: Store) -> Layout:
        for layout in self._release.layouts:
            if layout.ratings.name in store.members:
                return layout
        raise DataError(
            f"{store.path} holds no {self._release.layouts[0].ratings.name}: "
            f"set dataset.path to a folder or zip of {self.name}"
        )

    def _check_facts(self, ratings: RawTable) -> None:
        """Check the number of ratings and users against the published figures."""
        found = (len(ratings.frame), ratings.frame["user"].nunique())
        published = (self._release.num_interactions, self._release.num_users)
        if found != published:
            raise DataError(
                f"{ratings.file} holds {found[0]} ratings by {found[1]} users where {self.name} "
                f"has {published[0]} by {published[1]}: to use it anyway, set dataset.path"
            )


def _read_if_present(file: TextFile | None, store: Store) -> RawTable | None:
    return None if file is None or file.name not in store.members else file.read(store)

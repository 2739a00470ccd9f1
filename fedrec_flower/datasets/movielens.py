"""The MovieLens releases, from their publisher, from a copy, or from the user's own folder.

Their licence forbids redistribution: nothing of them lies in this repository.
Source: Harper & Konstan 2015, The MovieLens Datasets: History and Context, ACM TiiS 5(4).
"""

from dataclasses import dataclass
from pathlib import Path

from fedrec_flower.datasets.base import Duplicates, Fingerprint, cache_root
from fedrec_flower.datasets.encoding import encode
from fedrec_flower.datasets.movielens_layouts import Layout, TextFile
from fedrec_flower.datasets.movielens_releases import RELEASES, Release, fetch_release
from fedrec_flower.datasets.store import Store, open_store
from fedrec_flower.datasets.tables import RawTable
from fedrec_flower.errors import ConfigError, DataError
from fedrec_flower.interactions import Interactions


@dataclass(frozen=True, slots=True)
class MovieLens:
    """One release of MovieLens; the catalogue is the items that somebody rated.

    Users have `age`, `gender`, `occupation` and `zip_code` in ml-100k and ml-1m. Items have
    `title` (without the year), `year` and `genres`, sorted, "" where the release lists none.

    Attributes:
        name: a release, such as "ml-100k".
        path: a folder or zip of that release; None fetches it into the cache.
        cache_dir: folder for downloads and prepared data; None is the user's cache folder.
        duplicates: what to do when a user rated an item twice (no release has such ratings).
        min_interactions: users with fewer are dropped, and the log says how many.
    """

    name: str
    path: str | None
    cache_dir: str | None
    duplicates: Duplicates
    min_interactions: int

    def __post_init__(self) -> None:
        if self.name not in RELEASES:
            raise ConfigError(
                f"dataset.name={self.name} is no release of MovieLens: "
                f"choose from {', '.join(RELEASES)}"
            )

    @property
    def cache_path(self) -> Path:
        """The folder for downloads and prepared data; it need not exist yet."""
        return cache_root(self.cache_dir)

    def fingerprint(self) -> Fingerprint:
        """Everything that determines what `load` returns.

        Raises:
            DataError: if `path` is not there.
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
        """Read the release, fetching it first if need be.

        Raises:
            DataError: if it cannot be found or used; names file, column and line.
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
            users=_read_if_there(layout.users, store),
            items=_read_if_there(layout.items, store),
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
        """Check what was fetched against what its publisher says it is."""
        found = (len(ratings.frame), ratings.frame["user"].nunique())
        published = (self._release.num_interactions, self._release.num_users)
        if found != published:
            raise DataError(
                f"{ratings.file} holds {found[0]} ratings by {found[1]} users where {self.name} "
                f"has {published[0]} by {published[1]}: to use it all the same, set dataset.path"
            )


def _read_if_there(file: TextFile | None, store: Store) -> RawTable | None:
    return None if file is None or file.name not in store.members else file.read(store)

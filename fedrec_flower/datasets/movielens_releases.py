"""What GroupLens publishes about each MovieLens release, and where it can be fetched.

Source: https://grouplens.org/datasets/movielens/; checksums from the .md5 file beside each zip.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from fedrec_flower.datasets.downloads import Source, fetch_url, fetch_with_pip, obtain
from fedrec_flower.datasets.movielens_layouts import (
    CSV,
    DAT,
    DAT_WITH_USERS,
    RECBOLE,
    U_DATA,
    Layout,
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
        layouts: the ways its files are written, the publisher's first.
        num_users: number of users.
        num_interactions: number of ratings.
        digest: checksum of the publisher's zip; None where that zip may be replaced.
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
    """The archive of a release, from the folder or else from whoever has it.

    Args:
        name: a key of `RELEASES`.
        folder: where downloads are kept.

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
    return obtain((published, *release.mirrors), folder, advice)

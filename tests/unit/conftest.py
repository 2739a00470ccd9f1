"""Tiny data in every MovieLens layout; the films and users are made up."""

from collections.abc import Callable
from pathlib import Path

import pytest

_RATINGS = [(3, 10, 4, 70), (1, 2, 5, 50), (3, 2, 1, 60), (12, 10, 3, 90), (1, 30, 2, 40)]


def _ratings(separator: str, header: str = "") -> str:
    return header + "".join(separator.join(map(str, row)) + "\n" for row in _RATINGS)


def _flags(*ones: int) -> str:
    return "|".join("1" if number in ones else "0" for number in range(19))


_HALF_STARS = _ratings(",", "userId,movieId,rating,timestamp\n").replace(",4,", ",3.5,")

_CSV = {
    "ratings.csv": _HALF_STARS,
    "movies.csv": (
        "movieId,title,genres\n"
        '2,"Été, L\' (1998)",Comedy|Action\n'
        "7,Never Rated (2000),Drama\n"
        "10,Long Series (2006\u20132007),(no genres listed)\n"
        "30,No Year At All ,Sci-Fi\n"
    ),
}

_DAT = {
    "ratings.dat": _ratings("::"),
    "movies.dat": (
        "2::Été, L' (1998)::Comedy|Action\n"
        "7::Never Rated (2000)::Drama\n"
        "10::Long Way: Home, The (1995)::Children's\n"
        "30::No Year At All::Sci-Fi\n"
    ),
}

# Layout -> file -> text; item 7 is rated by nobody.
LAYOUTS: dict[str, dict[str, str]] = {
    "ml-100k": {
        "u.data": _ratings("\t"),
        "u.item": (
            f"2|Été, L' (1998)|01-Jan-1998||http://x?(1998)|{_flags(5, 1)}\n"
            f"7|Never Rated (2000)|01-Jan-2000||http://x|{_flags(8)}\n"
            f"10|Long Way: Home, The (1995) (V)|01-Jan-1996||http://x|{_flags(4, 15)}\n"
            f"30|unknown||||{_flags(0)}\n"
        ),
        "u.user": "1|24|M|technician|02139\n3|53|F|other|T8H1N\n12|9|F|writer|12345\n",
    },
    "recbole": {
        "ml-100k.inter": _ratings(
            "\t", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
        ),
        "ml-100k.item": (
            "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
            "2\tÉté, L'\t1998\tAction Comedy\n"
            "7\tNever Rated\t2000\tDrama\n"
            "10\tLong Way: Home, The (1995)\tV\tChildren's Sci-Fi\n"
            "30\tunkonwn\tunkonwn\tunknown\n"
        ),
        "ml-100k.user": (
            "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
            "1\t24\tM\ttechnician\t02139\n3\t53\tF\tother\tT8H1N\n12\t9\tF\twriter\t12345\n"
        ),
    },
    "ml-1m": {**_DAT, "users.dat": "1::M::25::12::02139\n3::F::1::10::55117\n12::F::56::0::1\n"},
    "ml-10m": {**_DAT, "ratings.dat": _DAT["ratings.dat"].replace("::4::", "::3.5::")},
    **dict.fromkeys(("ml-20m", "ml-25m", "ml-32m", "ml-latest-small"), _CSV),
}

_LATIN = {("ml-100k", "u.item"), ("ml-1m", "movies.dat")}

WriteMovieLens = Callable[[str], Path]


@pytest.fixture
def write_movielens(tmp_path: Path) -> WriteMovieLens:
    """Write the files of a layout into a folder of its own and return the folder."""

    def write(layout: str) -> Path:
        folder = tmp_path / layout
        folder.mkdir()
        for name, text in LAYOUTS[layout].items():
            encoding = "latin-1" if (layout, name) in _LATIN else "utf-8"
            (folder / name).write_bytes(text.encode(encoding))
        return folder

    return write

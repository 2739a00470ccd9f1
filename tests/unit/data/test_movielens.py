from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.interactions import Interactions
from fedrec_flower.data.sources.movielens import MovieLens

WriteMovieLens = Callable[[str], Path]


def dataset(name: str, path: Path) -> MovieLens:
    return MovieLens(name, str(path), None, "error", 1)


def assert_same(one: Interactions, other: Interactions) -> None:
    for field in ("user", "item", "rating", "timestamp", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    pd.testing.assert_frame_equal(one.users, other.users)
    pd.testing.assert_frame_equal(one.items, other.items)


def zipped(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, f"some folder/{path.name}")
    return archive


ALL = ["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest-small"]


@pytest.mark.parametrize("name", ALL)
def test_every_release_gives_the_ratings_in_file_order(
    name: str, write_movielens: WriteMovieLens
) -> None:
    data = dataset(name, write_movielens(name)).load()
    half = 4.0 if name in {"ml-100k", "ml-1m"} else 3.5
    assert data.user_ids.tolist() == [1, 3, 12]
    assert data.item_ids.tolist() == [2, 10, 30]
    assert data.user_ids[data.user].tolist() == [3, 1, 3, 12, 1]
    assert data.item_ids[data.item].tolist() == [10, 2, 2, 10, 30]
    assert data.rating is not None
    assert data.rating.tolist() == [half, 5, 1, 3, 2]
    assert data.timestamp is not None
    assert data.timestamp.tolist() == [70, 50, 60, 90, 40]


@pytest.mark.parametrize("name", ALL)
def test_a_zip_and_its_folder_are_the_same_data(name: str, write_movielens: WriteMovieLens) -> None:
    folder = write_movielens(name)
    assert_same(dataset(name, folder).load(), dataset(name, zipped(folder)).load())
    assert_same(dataset(name, folder).load(), dataset(name, folder.parent).load())


def test_recbole_and_grouplens_files_are_the_same_data(write_movielens: WriteMovieLens) -> None:
    grouplens = dataset("ml-100k", write_movielens("ml-100k")).load()
    recbole = dataset("ml-100k", write_movielens("recbole")).load()
    assert_same(grouplens, recbole)


def test_titles_lose_their_year_and_genres_are_sorted(write_movielens: WriteMovieLens) -> None:
    items = dataset("ml-100k", write_movielens("ml-100k")).load().items
    assert items["title"].tolist() == ["Été, L'", "Long Way: Home, The", "unknown"]
    assert items["year"].tolist() == [1998, 1995, pd.NA]
    assert items["genres"].tolist() == ["Action|Comedy", "Children's|Sci-Fi", "unknown"]


def test_a_title_without_year_stays_and_no_genre_is_an_empty_text(
    write_movielens: WriteMovieLens,
) -> None:
    items = dataset("ml-25m", write_movielens("ml-25m")).load().items
    assert items["title"].tolist() == ["Été, L'", "Long Series", "No Year At All"]
    assert items["year"].tolist() == [1998, 2006, pd.NA]
    assert items["genres"].tolist() == ["Action|Comedy", "", "Sci-Fi"]


def test_a_title_may_hold_half_of_the_separator(write_movielens: WriteMovieLens) -> None:
    items = dataset("ml-10m", write_movielens("ml-10m")).load().items
    assert items["title"].tolist() == ["Été, L'", "Long Way: Home, The", "No Year At All"]


def test_users_keep_their_attributes(write_movielens: WriteMovieLens) -> None:
    small = dataset("ml-100k", write_movielens("ml-100k")).load().users
    assert small["age"].tolist() == [24, 53, 9]
    assert small["gender"].tolist() == ["M", "F", "F"]
    assert small["occupation"].tolist() == ["technician", "other", "writer"]
    assert small["zip_code"].tolist() == ["02139", "T8H1N", "12345"]
    large = dataset("ml-1m", write_movielens("ml-1m")).load().users
    assert large["age"].tolist() == [25, 1, 56]
    assert large["occupation"].tolist() == ["programmer", "K-12 student", "other"]
    assert large["zip_code"].tolist() == ["02139", "55117", "1"]


def test_ratings_alone_are_enough(write_movielens: WriteMovieLens) -> None:
    folder = write_movielens("ml-20m")
    (folder / "movies.csv").unlink()
    data = dataset("ml-20m", folder).load()
    assert data.items.shape == (3, 0)
    assert len(data) == 5


def test_a_bad_rating_is_found_in_a_folder_and_in_a_zip(write_movielens: WriteMovieLens) -> None:
    folder = write_movielens("ml-1m")
    ratings = folder / "ratings.dat"
    ratings.write_text(ratings.read_text().replace("12::10::3", "12::10::many"))
    for path in (folder, zipped(folder)):
        with pytest.raises(DataError, match=r"ratings\.dat, line 4: rating 'many' is not a finite"):
            dataset("ml-1m", path).load()


def test_a_path_that_is_no_release_says_what_is_wrong(
    write_movielens: WriteMovieLens, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"nowhere cannot be read .No such file or directory"):
        dataset("ml-100k", tmp_path / "nowhere").load()
    with pytest.raises(DataError, match=r"holds no u\.data: set dataset\.path to a folder or zip"):
        dataset("ml-100k", write_movielens("ml-1m")).load()
    with pytest.raises(DataError, match=r"ratings\.dat is neither a folder nor a whole zip"):
        dataset("ml-1m", tmp_path / "ml-1m" / "ratings.dat").load()


def test_a_cut_zip_is_told_from_a_whole_one(write_movielens: WriteMovieLens) -> None:
    archive = zipped(write_movielens("ml-25m"))
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match="neither a folder nor a whole zip archive"):
        dataset("ml-25m", archive).load()


def test_a_damaged_member_of_a_zip_is_noticed(write_movielens: WriteMovieLens) -> None:
    archive = zipped(write_movielens("ml-25m"))
    content = archive.read_bytes()
    archive.write_bytes(content.replace(b"12,10,3,90", b"12,10,5,90"))
    with pytest.raises(DataError, match=r"ratings\.csv is damaged"):
        dataset("ml-25m", archive).load()


def test_an_edited_file_changes_the_fingerprint(write_movielens: WriteMovieLens) -> None:
    folder = write_movielens("ml-1m")
    data = dataset("ml-1m", folder)
    before = data.fingerprint()
    assert data.fingerprint() == before
    with (folder / "ratings.dat").open("a") as file:
        file.write("12::2::4::95\n")
    assert data.fingerprint() != before


def test_an_unknown_release_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"ml-2m is not a release.*ml-100k, ml-1m"):
        MovieLens("ml-2m", None, None, "error", 1)

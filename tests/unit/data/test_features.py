"""Laws of features: public for items, a fixed schema for users, nothing that names a user."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.data.features import item_features, user_features


def names(features: pd.DataFrame) -> list[str]:
    return [str(name) for name in features]


FILMS = pd.DataFrame(
    {
        "title": ["A", "B", "C", "D"],
        "genres": ["Comedy|Drama", "Drama", "", "Western"],
        "year": pd.array([1990, pd.NA, 2010, 2000], "Int64"),
    }
)


def test_an_item_has_a_flag_per_genre_one_per_period_and_its_year_between_first_and_last() -> None:
    features = item_features(FILMS, 4)
    genres = features[["genre=Comedy", "genre=Drama", "genre=Western"]]
    assert genres.to_numpy().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert features["year"].tolist() == [0.0, 0.0, 1.0, np.float32((2000 - 1990) / 20)]
    periods = features.filter(like="year=").sum(axis=1)
    assert periods.tolist() == [1, 0, 1, 1]  # none where the year is unknown
    assert set(features.dtypes) == {np.dtype(np.float32)}


def test_a_title_is_no_feature() -> None:
    other = FILMS.assign(title=["E", "F", "G", "H"])
    assert item_features(other, 4).equals(item_features(FILMS, 4))


@pytest.mark.parametrize("known", [pd.DataFrame(), FILMS[["title"]]])
def test_of_what_nothing_is_known_there_are_no_features(known: pd.DataFrame) -> None:
    assert item_features(known, 4).shape == (4, 0)


@pytest.mark.parametrize("year", [[1999] * 4, [pd.NA] * 4])
def test_years_that_tell_nothing_apart_are_no_feature(year: list[int]) -> None:
    films = FILMS.assign(year=pd.array(year, "Int64"))
    assert not [name for name in names(item_features(films, 4)) if name.startswith("year")]


@given(st.lists(st.none() | st.integers(1900, 2030), min_size=1, max_size=80))
def test_whatever_the_years_each_known_one_lies_in_one_period(years: list[int | None]) -> None:
    films = pd.DataFrame({"year": pd.array(years, "Int64")})
    features = item_features(films, len(years))
    assert len(features) == len(years)
    assert np.isfinite(features.to_numpy()).all()
    if features.shape[1]:
        periods = features.filter(like="year=").sum(axis=1)
        assert periods.tolist() == [float(year is not None) for year in years]


def people(num_users: int) -> pd.DataFrame:
    """Each of a few jobs, a number, and a code of their own."""
    number = np.arange(num_users)
    jobs = np.array(["baker", "carpenter", "driver"])
    return pd.DataFrame(
        {"age": number, "job": jobs[number % 3], "zip_code": [f"0{n:04}" for n in number]}
    )


def test_few_categories_become_flags_many_numbers_ranges_and_many_words_nothing() -> None:
    attributes = user_features(people(80), 80)
    told = [name.partition("=")[0] for name in names(attributes)]
    assert told == ["age"] * 8 + ["job"] * 3
    for word in ("age", "job"):
        assert attributes.filter(like=f"{word}=").sum(axis=1).tolist() == [1] * 80
    assert attributes["job=carpenter"].tolist() == [float(n % 3 == 1) for n in range(80)]


def test_ranges_are_equally_wide_so_that_no_user_moves_an_edge_but_the_first_and_last() -> None:
    crowded = people(80)
    crowded.loc[30:60, "age"] = 20
    assert names(user_features(crowded, 80)) == names(user_features(people(80), 80))


def test_what_a_user_does_not_say_is_zero() -> None:
    silent = people(80)
    silent.loc[3, ["age", "job"]] = pd.NA
    assert not user_features(silent, 80).loc[3].any()


def test_a_column_that_names_its_user_is_no_attribute_however_few_users_there_are() -> None:
    assert not [name for name in names(user_features(people(9), 9)) if "zip_code" in name]


def test_users_who_say_nothing_have_no_attributes() -> None:
    assert user_features(pd.DataFrame(), 5).shape == (5, 0)

"""The real MovieLens-100K, from the cache or fetched into it; skipped where nobody has it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedrec_flower.data.interactions import Interactions
from fedrec_flower.data.sources.download import UnreachableError
from fedrec_flower.data.sources.movielens import U_DATA, MovieLens


@pytest.fixture(scope="module")
def data() -> Interactions:
    try:
        return MovieLens("ml-100k", None, None, "error", 1).load()
    except UnreachableError as error:
        pytest.skip(f"MovieLens-100K is neither in the cache nor to be had: {error}")


def test_the_published_facts_hold(data: Interactions) -> None:
    assert (data.num_users, data.num_items, len(data)) == (943, 1682, 100_000)
    assert data.rating is not None
    stars, counts = np.unique(data.rating, return_counts=True)
    assert stars.tolist() == [1, 2, 3, 4, 5]
    assert counts.tolist() == [6110, 11370, 27145, 34174, 21201]
    assert np.bincount(data.user).min() == 20
    assert data.user_ids.tolist() == list(range(1, 944))
    assert data.item_ids.tolist() == list(range(1, 1683))


def test_users_and_items_are_described(data: Interactions) -> None:
    assert data.users["gender"].value_counts().to_dict() == {"M": 670, "F": 273}
    assert data.users["occupation"].nunique() == 21
    assert data.users["age"].between(7, 73).all()
    assert data.items["year"].isna().sum() == 1  # the one item whose title nobody knows
    assert not data.items["title"].str.contains(r"\(\d{4}\)").any()
    assert data.items["genres"].str.split("|").explode().nunique() == 19


def test_written_the_way_grouplens_does_it_reads_the_same(
    data: Interactions, tmp_path: Path
) -> None:
    assert data.rating is not None
    assert data.timestamp is not None
    columns = (
        data.user_ids[data.user],
        data.item_ids[data.item],
        data.rating.astype(int),
        data.timestamp,
    )
    np.savetxt(tmp_path / "u.data", np.column_stack(columns), "%d", "\t")
    names = U_DATA.items.names
    assert names is not None
    with (tmp_path / "u.item").open("w", encoding="latin-1") as file:
        for number, row in zip(data.item_ids, data.items.to_dict("records"), strict=True):
            year = "" if pd.isna(row["year"]) else f" ({row['year']})"
            flags = [str(int(name in row["genres"].split("|"))) for name in names[5:]]
            file.write("|".join([str(number), row["title"] + year, "", "", "", *flags]) + "\n")
    people = data.users.assign(user=data.user_ids)[["user", *data.users.columns]]
    people.to_csv(tmp_path / "u.user", sep="|", header=False, index=False)
    again = MovieLens("ml-100k", str(tmp_path), None, "error", 1).load()
    for field in ("user", "item", "rating", "timestamp", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(data, field), getattr(again, field))
    pd.testing.assert_frame_equal(data.users, again.users)
    pd.testing.assert_frame_equal(data.items, again.items)

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.sources.files import FileDataset

COLUMNS = {"user": "who", "item": "what", "rating": "stars", "timestamp": "when"}
ATOMIC = {"user": "user_id", "item": "item_id", "rating": "rating", "timestamp": "timestamp"}
ROWS = "who,what,stars,when,note\n7,x,4.5,20,\nNA,y,3,10,hm\n"


def dataset(path: Path, columns: Mapping[str, str | None] = COLUMNS, **options: Any) -> FileDataset:
    plain: dict[str, Any] = {
        "name": "file",
        "columns": columns,
        "items_path": None,
        "item_columns": {"title": None, "year": None, "genres": None},
        "catalogue": "interactions",
        "users_path": None,
        "separator": None,
        "cache_dir": None,
        "duplicates": "error",
        "min_interactions": 1,
    }
    return FileDataset(path=str(path), **{**plain, **options})


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def assert_holds_the_rows(data: FileDataset) -> None:
    loaded = data.load()
    assert loaded.user_ids[loaded.user].tolist() == ["7", "NA"]
    assert loaded.item_ids[loaded.item].tolist() == ["x", "y"]
    assert loaded.rating is not None
    assert loaded.rating.tolist() == [4.5, 3.0]
    assert loaded.timestamp is not None
    assert loaded.timestamp.tolist() == [20, 10]


@pytest.mark.parametrize(
    ("name", "separator", "text"),
    [
        ("a.csv", None, ROWS),
        ("a.csv", None, ROWS.replace("7,x", '"7","x"')),
        ("a.csv", None, ROWS.replace("\n", "\r\n")),
        ("a.csv", None, "\ufeff" + ROWS),
        ("a.csv", None, ROWS.replace("\n", "\n\n")),
        ("a.csv", None, ROWS.rstrip("\n")),
        ("A.CSV", None, ROWS),
        ("a.csv", ";", ROWS.replace(",", ";")),
        ("a.tsv", None, ROWS.replace(",", "\t")),
        ("a.dat", "::", ROWS.replace(",", "::")),
    ],
)
def test_the_same_rows_in_any_dress_are_the_same_data(
    name: str, separator: str | None, text: str, tmp_path: Path
) -> None:
    assert_holds_the_rows(dataset(written(tmp_path, name, text), separator=separator))


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"who": ["7", "NA"], "what": ["x", "y"], "stars": [4.5, 3.0], "when": [20, 10]}
    )
    frame.to_parquet(tmp_path / "a.parquet")
    assert_holds_the_rows(dataset(tmp_path / "a.parquet"))
    frame.astype({"who": "category"}).to_parquet(tmp_path / "b.parquet")
    assert_holds_the_rows(dataset(tmp_path / "b.parquet"))


def test_atomic_files_bring_the_tables_beside_them(tmp_path: Path) -> None:
    rows = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n7\tx\t4.5\t20.0\n"
    path = written(tmp_path, "a.inter", rows + "NA\ty\t3\t10.0\n")
    items = "item_id:token\ttitle:token_seq\tyear:token\tgenres:token_seq\tprice:float\n"
    written(tmp_path, "a.item", items + 'y\tThe "Y\t1999\tWar Drama\t2.5\nx\tX\t\t\t\n')
    written(tmp_path, "a.user", "user_id:token\tzip:token\tage:token\n7\t02139\t30\nNA\t10001\t\n")
    data = dataset(path, ATOMIC)
    assert_holds_the_rows(data)
    loaded = data.load()
    assert loaded.items["title"].tolist() == ["X", 'The "Y']
    assert loaded.items["year"].tolist() == [pd.NA, 1999]
    assert loaded.items["genres"].tolist() == ["", "War|Drama"]
    assert loaded.items["price"].tolist() == [pd.NA, 2.5]
    assert loaded.users["zip"].tolist() == ["02139", "10001"]
    assert loaded.users["age"].tolist() == [30, pd.NA]


def test_tables_are_read_by_the_names_they_are_given(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", ROWS)
    items = written(tmp_path, "i.tsv", "film\twhat\tkind\nX\tx\tA|B\nY\ty\t\n")
    users = written(tmp_path, "u.csv", "who,group\nNA,2\n7,1\n")
    named = {"title": "film", "year": None, "genres": "kind"}
    data = dataset(path, items_path=str(items), users_path=str(users), item_columns=named)
    loaded = data.load()
    assert loaded.items["title"].tolist() == ["X", "Y"]
    assert loaded.items["genres"].tolist() == ["A|B", ""]
    assert loaded.users["group"].tolist() == [1, 2]


def test_null_columns_make_implicit_data_without_time(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", ROWS)
    loaded = dataset(path, {**COLUMNS, "rating": None, "timestamp": None}).load()
    assert loaded.rating is None
    assert loaded.timestamp is None
    assert len(loaded) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "a.csv is empty"),
        ("\n\n", "a.csv is empty"),
        ("who,what,stars,when\n", "a.csv holds no interaction"),
        ("who,what,stars\n1,2,3\n", "a.csv has no column 'when', wanted as timestamp"),
        ("who,what,stars,when,who\n1,2,3,4,5\n", "a.csv has more than one column 'who'"),
        (ROWS + "\n8,y,,5,\n", "line 5: stars is missing"),
        (ROWS + "8,y,good,5,\n", "line 4: stars 'good' is not a finite number"),
        (ROWS + "8,y,nan,5,\n", "line 4: stars is missing"),
        (ROWS + "8,y,-inf,5,\n", "line 4: stars '-inf' is not a finite number"),
        (ROWS + "\n\n8,y,3,-5,\n", "line 6: when -5 is not a time"),
        (ROWS + ",y,3,5,\n", "line 4: who is missing"),
        (ROWS + "8,y,3\n", "line 4: 3 cells instead of 5"),
        (ROWS + "\n8,y,3,4,5,6\n", "line 5: 6 cells instead of 5"),
        (ROWS + "8,z,3,5,\n7,x,1,30,\n", "line 5: what x meets user 7 a second time"),
    ],
)
def test_bad_text_is_named_by_file_and_line(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=complaint):
        dataset(written(tmp_path, "a.csv", text)).load()


def test_text_in_another_encoding_and_false_parquet_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(ROWS.encode() + b"\xe9,y,3,5,\n")
    with pytest.raises(DataError, match=r"a\.csv, line 4 is not utf-8 text: save the file as"):
        dataset(tmp_path / "a.csv").load()
    (tmp_path / "b.csv").write_bytes(b"\xe9" + ROWS.encode())
    with pytest.raises(DataError, match=r"b\.csv has no column 'who'"):
        dataset(tmp_path / "b.csv").load()
    with pytest.raises(DataError, match=r"a\.parquet is not a valid Parquet file"):
        dataset(written(tmp_path, "a.parquet", ROWS)).load()
    with pytest.raises(DataError, match=r"none\.parquet cannot be read .No such file"):
        dataset(tmp_path / "none.parquet").load()


def test_a_parquet_row_is_named_by_its_number(tmp_path: Path) -> None:
    frame = pd.DataFrame({"who": [1, 2], "what": [1, 1], "stars": [1, None], "when": [1, 1]})
    frame.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet, row 2: stars is missing"):
        dataset(tmp_path / "a.parquet").load()


def test_wrong_options_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", ROWS)
    with pytest.raises(ConfigError, match=r"dataset\.columns\.usr is unknown"):
        dataset(path, {**COLUMNS, "usr": "who"})
    with pytest.raises(ConfigError, match=r"dataset\.columns\.item is missing"):
        dataset(path, {**COLUMNS, "item": None})
    with pytest.raises(ConfigError, match=r"dataset\.item_columns\.name is unknown"):
        dataset(path, item_columns={"name": "film"})
    with pytest.raises(ConfigError, match=r"a\.log ends in none of .*dataset\.separator"):
        dataset(written(tmp_path, "a.log", ROWS)).load()
    with pytest.raises(DataError, match=r"none\.csv cannot be read .No such file"):
        dataset(tmp_path / "none.csv").load()


def test_every_file_and_option_is_in_the_fingerprint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "a.csv", ROWS)
    users = written(tmp_path, "u.csv", "who,group\n7,1\n")
    base = dataset(path).fingerprint()
    assert dataset(path).fingerprint() == base
    with_users = dataset(path, users_path=str(users))
    fingerprints = [
        base,
        with_users.fingerprint(),
        dataset(path, {**COLUMNS, "rating": None}).fingerprint(),
        dataset(path, duplicates="last").fingerprint(),
        dataset(path, min_interactions=2).fingerprint(),
    ]
    users.write_text("who,group\n7,12\n")
    fingerprints.append(with_users.fingerprint())
    assert all(one != other for one in fingerprints for other in fingerprints if one is not other)
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        assert with_users.load().users["group"].tolist() == [12, pd.NA]
    assert "1 users of the interactions are not in it" in caplog.text


def test_a_file_of_equal_size_and_time_is_another_file(tmp_path: Path) -> None:
    """F5: prepared data were taken for those of an older file of equal size and time of change."""
    path = written(tmp_path, "a.csv", ROWS)
    before, stamp = dataset(path).fingerprint(), path.stat()
    path.write_bytes(path.read_bytes().swapcase())
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stamp.st_size, stamp.st_mtime_ns)
    assert dataset(path).fingerprint() != before


LISTED = "what,title\nx,One\nz,Nobody met it\ny,Two\n"


def test_an_item_of_a_single_user_is_not_published_where_a_table_gives_the_catalogue(
    tmp_path: Path,
) -> None:
    """Item 11: an item that one user alone had is not published, or is named."""
    # Before, the ids of the model's rows told that somebody had y.
    table = written(tmp_path, "items.csv", LISTED)
    without = written(tmp_path, "without.csv", ROWS.replace("NA,y", "NA,x"))
    with_it = written(tmp_path, "with.csv", ROWS)
    about: dict[str, Any] = {"items_path": str(table), "item_columns": {"title": "title"}}
    loaded = [dataset(p, catalogue="items", **about).load() for p in (without, with_it)]
    for found in loaded:
        assert found.item_ids.tolist() == ["x", "y", "z"]
        assert found.items["title"].tolist() == ["One", "Two", "Nobody met it"]
    assert loaded[1].item_ids[loaded[1].item].tolist() == ["x", "y"]
    assert dataset(with_it, **about).load().item_ids.tolist() == ["x", "y"]  # as ever


def test_a_catalogue_needs_a_table_with_every_item(tmp_path: Path) -> None:
    """Item 11: an item that one user alone had is not published, or is named."""
    path = written(tmp_path, "a.csv", ROWS)
    with pytest.raises(ConfigError, match=r"set dataset.items_path"):
        dataset(path, catalogue="items")
    with pytest.raises(ConfigError, match=r"catalogue=table must be"):
        dataset(path, catalogue="table")
    table = written(tmp_path, "items.csv", "what\nx\n")
    with pytest.raises(DataError, match=r"items.csv has no item y, which an interaction names"):
        dataset(path, catalogue="items", items_path=str(table)).load()

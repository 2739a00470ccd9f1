"""Laws of files: whole or absent, private where they hold data of users."""

import errno
import os
from pathlib import Path

import pandas as pd
import pytest

from fedrec_flower.results import RunFolder
from fedrec_flower.writing import copy_or_link, give_name, replacing


@pytest.mark.parametrize("table", ["per_user", "recommendations", "clients"])
def test_tables_about_users_are_readable_by_their_owner_alone(tmp_path: Path, table: str) -> None:
    folder = RunFolder.create(tmp_path / "run")
    before = os.umask(0)
    try:
        folder.write_table(table, pd.DataFrame({"user_id": ["0", "000"]}))
    finally:
        os.umask(before)
    assert (folder.path / f"{table}.csv").stat().st_mode & 0o777 == 0o600


def test_a_private_file_is_private_before_its_first_byte(tmp_path: Path) -> None:
    left = tmp_path / ".table.csv.partial"  # by a run that was killed
    left.write_text("old")
    left.chmod(0o644)
    with replacing(tmp_path / "table.csv", private=True) as partial:
        assert partial.stat().st_mode & 0o777 == 0o600
        partial.write_text("new")
    assert (tmp_path / "table.csv").read_text() == "new"


@pytest.fixture(params=["with hard links", "without hard links"])
def disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    if request.param == "without hard links":

        def refuse(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "link", refuse)
    return tmp_path


def test_the_first_of_several_files_gets_a_name(disk: Path) -> None:
    for text in ("first", "second"):
        scratch = disk / text
        scratch.write_text(text)
        give_name(scratch, disk / "name")
    assert (disk / "name").read_text() == "first"
    assert not list(disk.glob(".*"))


def test_a_second_name_holds_the_same_bytes_and_replaces_what_it_held(disk: Path) -> None:
    (disk / "file").write_text("values")
    (disk / "copy").write_text("old")
    copy_or_link(disk / "file", disk / "copy")
    assert (disk / "copy").read_text() == (disk / "file").read_text() == "values"

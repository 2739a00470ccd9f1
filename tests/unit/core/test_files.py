"""Files are written atomically, and files with data of users are private."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.core.files import atomic_write, copy_or_link, rename_if_absent
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Columns
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.shadow_federations import Shadows
from fedrec_flower.experiment.transfer import MODEL, SavedModel

if TYPE_CHECKING:
    from tests.conftest import PrepareSmall


@pytest.mark.parametrize("table", ["per_user", "recommendations", "clients"])
def test_tables_of_users_have_mode_600(tmp_path: Path, table: str) -> None:
    """Item 16: files with data of users have mode 600."""
    folder = RunFolder.create(tmp_path / "run")
    before = os.umask(0)
    try:
        folder.write_table(table, pd.DataFrame({"user_id": ["0", "000"]}))
    finally:
        os.umask(before)
    assert (folder.path / f"{table}.csv").stat().st_mode & 0o777 == 0o600


@contextmanager
def open_to_all() -> Iterator[None]:
    """Files and folders are made with all the permissions that a program asks for."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_checkpoints_have_mode_600(tmp_path: Path) -> None:
    """Item 16, its kind: checkpoints record which clients took part, and how often."""
    with open_to_all():
        folder = RunFolder.create(tmp_path / "run")
        asked = {"asked": np.array([1, 0, 2])}
        folder.checkpoints.write(Checkpoint(1, "round-1", [], [], asked, {}))
    (written,) = (folder.path / "checkpoints").iterdir()
    assert (mode(written.parent), mode(written)) == (0o700, 0o600)
    assert folder.checkpoints.newest() is not None


@pytest.mark.parametrize(("more", "expected"), [({}, 0o666), ({"versions": np.arange(2)}, 0o600)])
def test_model_with_client_groups_has_mode_600(
    tmp_path: Path, more: dict[str, NDArray[np.int64]], expected: int
) -> None:
    """Item 16, its kind: clustered federations publish the group of each client."""
    with open_to_all():
        folder = RunFolder.create(tmp_path / "run")
        folder.write_model({"table": np.ones((2, 1, 3), np.float32)} | more, np.array(["a"]))
    assert mode(folder.path / MODEL) == expected
    assert SavedModel.read(str(folder.path)).parameters["table"].shape[-1] == 3


def test_shadow_federations_have_mode_600(tmp_path: Path) -> None:
    """Item 16, its kind: shadow federations record which users trained."""
    claims = Columns(np.arange(4), np.zeros(3, np.int32), None)
    data: Any = SimpleNamespace(path=tmp_path / "prepared" / "x", client_offsets=np.arange(4))
    result = SimpleNamespace(
        rounds_participated=np.ones(3),
        selected=SimpleNamespace(parameters={"table": np.ones((2, 3), np.float32)}),
    )

    def train(*_: object) -> Any:
        return result

    shadows = Shadows({}, data, train)
    with open_to_all(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "fedrec_flower.experiment.shadow_federations.reassign_training_users", lambda *_: data
        )
        shadow = shadows(0, claims, np.array([True, False, True]))
    assert shadow.trained.tolist() == [True, False, True]
    (kept,) = (tmp_path / "shadows").glob("*/*.safetensors")
    assert mode(kept) == 0o600


def test_repaired_prepared_data_have_mode_700(
    prepare_small: "PrepareSmall",
) -> None:
    """Item 16, its kind: the folder that is there may be readable by all."""
    path = prepare_small().path
    assert mode(path) == 0o700
    path.chmod(0o755)
    (path / "train_item.npy").write_bytes(b"damaged")
    assert len(prepare_small().part(Part.TRAIN).item)
    assert mode(path) == 0o700


def test_private_file_has_mode_600_before_its_first_byte(tmp_path: Path) -> None:
    """Item 16: files with data of users have mode 600."""
    left = tmp_path / ".table.csv.partial"  # left by a killed run
    left.write_text("old")
    left.chmod(0o644)
    with atomic_write(tmp_path / "table.csv", private=True) as partial:
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


def test_rename_if_absent_keeps_the_first_file(disk: Path) -> None:
    for text in ("first", "second"):
        scratch = disk / text
        scratch.write_text(text)
        rename_if_absent(scratch, disk / "name")
    assert (disk / "name").read_text() == "first"
    assert not list(disk.glob(".*"))


def test_copy_or_link_replaces_an_existing_file(disk: Path) -> None:
    (disk / "file").write_text("values")
    (disk / "copy").write_text("old")
    copy_or_link(disk / "file", disk / "copy")
    assert (disk / "copy").read_text() == (disk / "file").read_text() == "values"

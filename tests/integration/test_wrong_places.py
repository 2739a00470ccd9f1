"""Folders that cannot be written, full disks and invalid data."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import Command

# --- folders and files ------------------------------------------------------------------------


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A path below a file, where even root cannot create a folder."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


def test_output_folder_that_cannot_be_created_is_an_error(
    command: "Command", smoke: tuple[str, ...], no_folder: Path
) -> None:
    said = command(*smoke, f"output_dir={no_folder}").sentence()
    assert str(no_folder) in said
    assert "set output_dir=" in said


def test_output_folder_with_a_run_is_an_error(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*smoke, "num_rounds=0", f"output_dir={tmp_path / 'run'}")
    assert command(*words).code == 0
    before = (tmp_path / "run" / "summary.json").read_text()
    said = command(*words).sentence()
    assert said.startswith(f"{tmp_path / 'run'} already holds a run: set output_dir=")
    assert (tmp_path / "run" / "summary.json").read_text() == before


def test_cache_folder_that_cannot_be_created_is_an_error(
    command: "Command", smoke: tuple[str, ...], no_folder: Path, tmp_path: Path
) -> None:
    words = (*smoke, f"dataset.cache_dir={no_folder}", f"output_dir={tmp_path / 'run'}")
    said = command(*words).sentence()
    assert str(no_folder) in said
    assert "set dataset.cache_dir=" in said


@pytest.mark.parametrize("damage", ["truncated", "removed", "emptied"])
def test_damaged_cache_is_rebuilt_silently(
    smoke: tuple[str, ...], tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from fedrec_flower.experiment.composition import compose
    from fedrec_flower.experiment.run import prepare_data

    config, _ = compose([*smoke, f"dataset.cache_dir={tmp_path}"])
    column = prepare_data(config).path / "train_item.npy"
    whole = column.read_bytes()
    if damage == "removed":
        column.unlink()
    else:
        column.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
    again = prepare_data(config)
    assert again.path == column.parent
    assert column.read_bytes() == whole
    assert capfd.readouterr() == ("", "")


@contextmanager
def files_no_longer_than(num_bytes: int) -> Iterator[None]:
    """Limit the size of files, like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# The limits exclude the configuration, the rounds, and personal parameters.
@pytest.mark.parametrize("num_bytes", [200, 1500, 10_000])
@pytest.mark.usefixtures("earlier")  # its prepared data fit, the run folder does not
def test_full_disk_below_the_run_folder_is_one_error(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, num_bytes: int
) -> None:
    words = (*smoke, "num_rounds=1", "model.embedding_dim=32", f"output_dir={tmp_path / 'run'}")
    with files_no_longer_than(num_bytes):
        ended = command(*words)
    said = ended.sentence()
    assert str(tmp_path / "run") in said
    assert "space" in said
    assert "File too large" in said
    assert not list((tmp_path / "run").rglob("*.partial"))


@pytest.mark.usefixtures("earlier")
def test_figure_that_cannot_be_written_does_not_fail_the_run(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    small = ("num_rounds=1", "model.embedding_dim=32", "checkpoint_every=null")
    words = (*smoke, *small, f"output_dir={tmp_path / 'run'}")
    with files_no_longer_than(40_000):
        ended = command(*words)
    assert ended.code == 0
    said = ended.err.splitlines()[-1]
    assert said.startswith("the run is complete, except for its figures: ")
    assert "File too large" in said
    assert "Traceback" not in ended.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "completed"


def test_full_disk_below_the_cache_is_one_error(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*smoke, f"dataset.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'run'}")
    with files_no_longer_than(3000):
        said = command(*words).sentence()
    assert str(tmp_path / "cache") in said
    assert "free space or set dataset.cache_dir=" in said
    assert list((tmp_path / "cache" / "prepared").iterdir()) == []


# --- the user's own data ----------------------------------------------------------------------


def test_missing_data_file_is_an_error(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere.csv"
    words = (f"dataset.path={missing}", f"output_dir={tmp_path / 'run'}")
    said = command(*own_data, *words).sentence()
    assert said.startswith(f"{missing} cannot be read (No such file or directory)")


def test_folder_instead_of_a_data_file_is_an_error(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "data.csv").mkdir()
    words = (f"dataset.path={tmp_path / 'data.csv'}", f"output_dir={tmp_path / 'run'}")
    said = command(*own_data, *words).sentence()
    assert said.startswith(f"{tmp_path / 'data.csv'} cannot be read (Is a directory)")


@pytest.fixture
def changed_data(ratings: Path, tmp_path: Path) -> Path:
    """A copy of the user's file that a test may change."""
    copy = tmp_path / "changed.csv"
    copy.write_text(ratings.read_text())
    return copy


def test_split_needs_enough_interactions_per_user(
    command: "Command", own_data: tuple[str, ...], changed_data: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(changed_data, dtype=str)
    short = frame["user_id"].eq("017").cumsum() > 2
    frame[~(short & frame["user_id"].eq("017"))].to_csv(changed_data, index=False)
    words = (f"dataset.path={changed_data}", f"output_dir={tmp_path / 'run'}")
    said = command(*own_data, *words).sentence()
    assert said.startswith("user 017 has 2 interactions and this split needs 3")
    assert said.endswith("set dataset.min_interactions=3")


def test_invalid_rating_names_file_and_line(
    command: "Command", own_data: tuple[str, ...], changed_data: Path, tmp_path: Path
) -> None:
    lines = changed_data.read_text().splitlines()
    user, item, _, time = lines[6].split(",")
    lines[6] = f"{user},{item},good,{time}"
    changed_data.write_text("\n".join(lines))
    words = (f"dataset.path={changed_data}", f"output_dir={tmp_path / 'run'}")
    said = command(*own_data, *words).sentence()
    assert str(changed_data) in said
    assert "line 7" in said
    assert "rating" in said


def test_rating_task_without_ratings_is_an_error(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("task=rating", "dataset.columns.rating=null", f"output_dir={tmp_path / 'run'}")
    base = [word for word in own_data if not word.startswith("evaluation.num_negatives")]
    said = command(*base, *words).sentence()
    assert said == "task=rating needs ratings and these data have none: set task=ranking"


@pytest.mark.parametrize("model", ["gru4rec", "sasrec"])
def test_sequential_model_without_timestamps_is_an_error(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path, model: str
) -> None:
    words = ("dataset.columns.timestamp=null", "split=random", f"model={model}")
    said = command(*own_data, *words, f"output_dir={tmp_path / 'run'}").sentence()
    assert "reads items in order of time" in said


@pytest.mark.parametrize("split", ["leave_one_out", "leave_last_fraction", "temporal"])
def test_temporal_split_without_timestamps_is_an_error(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path, split: str
) -> None:
    words = ("dataset.columns.timestamp=null", f"output_dir={tmp_path / 'run'}", f"split={split}")
    said = command(*own_data, *words).sentence()
    assert "has no timestamps" in said
    assert "use split=random" in said

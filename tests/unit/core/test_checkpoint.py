"""Checkpoints are restored completely, or the previous valid one is used."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from fedrec_flower.core.checkpoint import Checkpoint, flat, nested, pack, unpack
from fedrec_flower.core.errors import FedrecError
from fedrec_flower.experiment.run_folder import RunFolder

KINDS = st.sampled_from(["float32", "float64", "int64", "int32", "uint8", "bool"])
ARRAYS = hnp.arrays(KINDS, hnp.array_shapes(min_dims=0, min_side=0, max_side=3))
NAMES = st.text("abz/._-0", min_size=1, max_size=12)
FACTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def checkpoint(round_: int = 1, **changes: Any) -> Checkpoint:
    """A checkpoint whose slot is named by its round."""
    told = {
        "slot": f"slot-{round_}",
        "beside": [],
        "spared": [],
        "arrays": {"a": np.arange(3, dtype=np.float32) * round_, "count": np.array(round_)},
        "facts": {"loss": 0.1 + round_},
    }
    return Checkpoint(round=round_, **(told | changes))


def same(one: Checkpoint, other: Checkpoint) -> None:
    assert list(one.arrays) == list(other.arrays)  # messages rely on the order
    for name, value in one.arrays.items():
        found = other.arrays[name]
        assert (found.dtype, found.shape) == (value.dtype, value.shape)
        assert found.tobytes() == value.tobytes()
    assert json.dumps(one.facts) == json.dumps(other.facts)
    for name in ("round", "slot", "beside", "spared"):
        assert getattr(one, name) == getattr(other, name)


# --- one file ---------------------------------------------------------------------------------


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), FACTS)
def test_unpack_of_pack_restores_every_bit(
    arrays: dict[str, np.ndarray[Any, Any]], facts: Any
) -> None:
    given_ = checkpoint(3, arrays=arrays, facts={"all": facts}, beside=["x"], spared=["y", "z"])
    same(unpack(b"".join(pack(given_))), given_)


WHOLE = b"".join(pack(checkpoint()))


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_unpack_with_one_changed_byte_raises(place: int, by: int) -> None:
    changed = bytearray(WHOLE)
    changed[place] ^= by
    with pytest.raises(ValueError, match="does not match its digest"):
        unpack(bytes(changed))


@given(st.integers(0, len(WHOLE) - 1) | st.binary(min_size=1, max_size=9))
def test_unpack_of_a_shorter_or_longer_file_raises(change: int | bytes) -> None:
    changed = WHOLE[:change] if isinstance(change, int) else WHOLE + change
    with pytest.raises(ValueError, match="does not match its digest"):
        unpack(changed)


@given(st.dictionaries(st.sampled_from("ab"), st.dictionaries(NAMES, ARRAYS, min_size=1)))
def test_nested_inverts_flat(
    groups: dict[str, dict[str, np.ndarray[Any, Any]]],
) -> None:
    again = nested(flat(**groups))
    assert {name: set(arrays) for name, arrays in again.items()} == {
        name: set(arrays) for name, arrays in groups.items()
    }
    assert again["a group that was empty"] == {}


# --- several ----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with four rounds on disk, each with its slot."""
    run = RunFolder.create(tmp_path / "run")
    for round_ in range(1, 5):
        reach(run, round_)
    return run


def reach(run: RunFolder, round_: int) -> None:
    """Write the files of a round: a row, and the nodes' parameters in `current` and in a slot."""
    run.add_round(round_, "train", {"loss": 1 / round_}, 4)
    for slot in ("current", f"slot-{round_}"):
        folder = run.path / "clients" / slot
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        np.save(folder / "user.npy", np.full((3, 2), round_, np.float32))


def write(run: RunFolder, *rounds: int) -> None:
    for round_ in rounds:
        run.checkpoints.write(checkpoint(round_))


def newest(run: RunFolder) -> int | None:
    found = run.checkpoints.newest()
    return None if found is None else found.round


def kept(run: RunFolder) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def test_newest_without_checkpoints_is_none(tmp_path: Path) -> None:
    assert RunFolder.create(tmp_path / "run").checkpoints.newest() is None


def test_write_keeps_the_last_two_checkpoints(run: RunFolder) -> None:
    write(run, 1, 2, 3)
    assert kept(run) == ["round-2.checkpoint", "round-3.checkpoint"]
    found = run.checkpoints.newest()
    assert found is not None
    same(found, checkpoint(3))


def test_checkpoints_are_ordered_by_number_not_by_name(run: RunFolder) -> None:
    for round_ in (9, 10):
        run.checkpoints.write(checkpoint(round_, slot="slot-1"))
    assert newest(run) == 10


def _flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


DAMAGES = (_flip, _cut, Path.unlink)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("what", ["clients/slot-4/user.npy", "clients/slot-3/user.npy"])
def test_newest_skips_a_damaged_checkpoint_with_a_warning(
    run: RunFolder,
    what: str,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(run, 1)
    run.checkpoints.write(checkpoint(4, beside=["slot-3"]))
    damage(run.path / what)
    assert newest(run) == 1
    (warning,) = caplog.messages
    damaged = run.path / "checkpoints" / "round-4.checkpoint"
    assert warning.startswith(f"{damaged} is damaged, so the previous checkpoint is used: ")
    assert newest(run) == 1
    assert len(caplog.messages) == 1  # the damaged file was renamed
    write(run, 2)
    assert newest(run) == 2


@pytest.mark.parametrize("damage", [_flip, _cut])
def test_damaged_checkpoint_file_is_reported(
    run: RunFolder, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    write(run, 3, 4)
    damage(run.path / "checkpoints" / "round-4.checkpoint")
    assert newest(run) == 3
    assert caplog.messages[0].endswith("its content does not match its digest")


def test_checkpoint_without_its_rows_of_rounds_csv_is_invalid(run: RunFolder) -> None:
    write(run, 4)
    reach(run, 5)  # later rows do not matter
    assert newest(run) == 4
    os.truncate(run.path / "rounds.csv", 40)
    assert newest(run) is None


def test_newest_is_none_if_all_checkpoints_are_damaged(run: RunFolder) -> None:
    write(run, 3, 4)
    for name in kept(run):
        _flip(run.path / "checkpoints" / name)
    assert newest(run) is None


def test_restore_removes_all_later_state(run: RunFolder) -> None:
    rows = (run.path / "rounds.csv").read_bytes()
    run.checkpoints.write(checkpoint(4, beside=["slot-2"], spared=["slot-1"]))
    reach(run, 5)
    np.save(run.path / "clients" / "current" / "control.npy", np.ones(3))
    found = run.checkpoints.newest()
    assert found is not None
    for _ in range(2):  # a process that is killed during restore repeats it
        run.checkpoints.restore(found)
        assert (run.path / "rounds.csv").read_bytes() == rows
        store = run.path / "clients"
        assert {p.name for p in store.iterdir()} == {"current", "slot-1", "slot-2", "slot-4"}
        assert [p.name for p in (store / "current").iterdir()] == ["user.npy"]
        assert_array_equal(np.load(store / "current" / "user.npy"), np.full((3, 2), 4))
        assert (store / "current").stat().st_mode & 0o777 == 0o700


# --- while it is written ------------------------------------------------------------------------

KILLED_IN = """
import os, signal, sys
from pathlib import Path
from fedrec_flower.experiment.run_folder import RunFolder
from tests.unit.core.test_checkpoint import checkpoint

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

owner, name = {place}
setattr(owner, name, die)
RunFolder(Path(sys.argv[1])).checkpoints.write(checkpoint(4))
"""
PLACES = ("os, 'fsync'", "Path, 'replace'", "Path, 'unlink'")


@pytest.mark.parametrize("place", PLACES)
def test_process_killed_during_write_keeps_earlier_checkpoints(run: RunFolder, place: str) -> None:
    write(run, 2, 3)
    before = kept(run)
    program = KILLED_IN.format(place=place)
    root = Path(__file__).parents[3]
    killed = subprocess.run([sys.executable, "-c", program, str(run.path)], check=False, cwd=root)
    assert killed.returncode == -signal.SIGKILL
    assert set(before) <= set(kept(run))
    assert newest(run) == (4 if "unlink" in place else 3)
    write(run, 4)
    assert kept(run) == ["round-3.checkpoint", "round-4.checkpoint"]


def test_full_disk_is_one_error_and_keeps_earlier_checkpoints(run: RunFolder) -> None:
    write(run, 2, 3)
    before = kept(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(FedrecError, match=r"round-4\.checkpoint could not be .*free some disk"):
            write(run, 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kept(run) == before
    assert newest(run) == 3


def test_tidy_removes_checkpoints_and_slots(run: RunFolder) -> None:
    write(run, 3, 4)
    shutil.copy(run.path / "clients" / "slot-4" / "user.npy", run.path / "clients" / "user.npy")
    for _ in range(2):
        run.tidy()
        assert [path.name for path in (run.path / "clients").iterdir()] == ["user.npy"]
        assert not (run.path / "checkpoints").exists()


def test_infinite_facts_are_restored() -> None:
    facts = {"best": math.inf, "worst": -math.inf}
    assert unpack(b"".join(pack(checkpoint(facts=facts)))).facts == facts

"""What an unfinished run goes on from: the last two checkpoints, each whole or not there at all.

A checkpoint is one file, beside which it needs what the run has on disk anyway: the beginning of
`rounds.csv`, and the slots in which the nodes keep snapshots of their personal parameters. The
file tells their sizes and checksums, so a checkpoint counts only while all of it is sound.
"""

import json
import logging
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from fedrec_flower.core.files import explained, inside, replacing

_LOG = logging.getLogger(__name__)

_GENERATIONS = 2
_DIGEST = 32  # bytes of a SHA-256
_BLOCK = 1 << 20  # bytes
_TOLD = "told"  # the array that holds, as JSON, all that is no array
_PRIVATE_FOLDER = 0o700


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run between two rounds.

    Attributes:
        round: the last round it holds.
        slot: where the nodes keep their personal parameters of that round.
        beside: slots of other rounds that it refers to.
        spared: slots that the checkpoint before this one needs.
        arrays: any names but "told", any shapes; they come back in the same order.
        facts: whatever JSON can say; floats come back to the last bit.
        files: what must be found beside it: a file's size in bytes, and the CRC-32 of so many;
            known once it is written.
    """

    round: int
    slot: str
    beside: list[str]
    spared: list[str]
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]
    files: Mapping[str, list[int]] = field(default_factory=dict)


_IN_JSON = ("round", "slot", "beside", "spared", "facts", "files")


def pack(checkpoint: Checkpoint) -> tuple[bytes, bytes]:
    """The file of a checkpoint: a SHA-256, and what it is the digest of, which is safetensors."""
    told = {name: getattr(checkpoint, name) for name in _IN_JSON}
    # Messages carry arrays in the order of their names, and safetensors forgets it.
    text = json.dumps({**told, "order": list(checkpoint.arrays)})
    content = save({**checkpoint.arrays, _TOLD: np.frombuffer(text.encode(), np.uint8)})
    return sha256(content).digest(), content


def unpack(packed: bytes) -> Checkpoint:
    """What `pack` packed.

    Raises:
        ValueError: if a single bit is not as it was written.
        KeyError: if another version wrote it, and told less.
        TypeError: likewise, and told other things.
    """
    content = memoryview(packed)[_DIGEST:]
    if sha256(content).digest() != packed[:_DIGEST]:
        raise ValueError("its bytes are not those that were written")
    arrays = load(bytes(content))
    told = json.loads(arrays.pop(_TOLD).tobytes())
    return Checkpoint(arrays={name: arrays[name] for name in told.pop("order")}, **told)


def flat(**groups: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Groups of arrays as one, a name such as "state/first/item_bias.weight" for each array."""
    return {
        f"{group}/{name}": array
        for group, arrays in groups.items()
        for name, array in arrays.items()
    }


def nested(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """What `flat` was given; a group that was empty, or is asked for in vain, is empty."""
    groups = defaultdict[str, dict[str, NDArray[Any]]](dict)
    for path, array in arrays.items():
        group, _, name = path.partition("/")
        groups[group][name] = array
    return groups


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the run's folder; its nodes keep their parameters in `clients`, as they do wherever
            they share a disk with the server.
    """

    def __init__(self, run: Path) -> None:
        self._run, self._folder, self._store = run, run / "checkpoints", run / "clients"

    def write(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, and remove all but the one before.

        Raises:
            FedrecError: if the disk is full; the checkpoints there were are still there.
        """
        path = self._folder / f"round-{checkpoint.round}.checkpoint"
        with explained(path):
            self._folder.mkdir(_PRIVATE_FOLDER, exist_ok=True)
            found = dict(self._seen(checkpoint))
        # It tells who was asked in which round.
        with replacing(path, private=True) as partial, partial.open("wb") as file:
            file.writelines(pack(replace(checkpoint, files=found)))
            file.flush()
            # The name must not be there before what it names, even if the power fails.
            os.fsync(file.fileno())
        for old in self._newest_first()[_GENERATIONS:]:
            old.unlink()

    def newest(self) -> Checkpoint | None:
        """The last checkpoint of which all is sound; those after it are warned of and set aside.

        None if there is no such checkpoint: the run must begin anew.
        """
        for path in self._newest_first():
            try:
                checkpoint = unpack(path.read_bytes())
                self._require_sound(checkpoint)
            except (OSError, ValueError) as error:
                _set_aside(path, "damaged", error)
            except (KeyError, TypeError, AttributeError) as error:  # whole, told by other code
                _set_aside(path, "of another version of the code", error)
            else:
                return checkpoint
        return None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set `rounds.csv` and the nodes' parameters back to a checkpoint that was read.

        Whatever else the nodes have left is removed: it belongs to rounds that are to come.

        Raises:
            FedrecError: if the disk is full; the checkpoint stays sound.
        """
        kept = {checkpoint.slot, *checkpoint.beside, *checkpoint.spared}
        with explained(self._store):
            os.truncate(self._run / "rounds.csv", checkpoint.files["rounds.csv"][0])
            for folder in self._store.iterdir() if self._store.exists() else ():
                if folder.is_dir() and folder.name not in kept:
                    shutil.rmtree(folder)
            for file in self._snapshot(checkpoint.slot):
                current = self._store / "current"
                current.mkdir(_PRIVATE_FOLDER, exist_ok=True)
                shutil.copy2(file, current)

    def _newest_first(self) -> list[Path]:
        files = self._folder.glob("round-*.checkpoint")
        return sorted(files, key=lambda file: -int(file.stem.removeprefix("round-")))

    def _snapshot(self, slot: str) -> list[Path]:
        return sorted(inside(self._store, slot).glob("*.npy"))

    def _seen(self, checkpoint: Checkpoint) -> Iterator[tuple[str, list[int]]]:
        """The files that a checkpoint needs beside its own, as they are now."""
        slots = (checkpoint.slot, *checkpoint.beside)
        snapshots = [file for slot in slots for file in self._snapshot(slot)]
        for file in (self._run / "rounds.csv", *snapshots):
            size = file.stat().st_size
            yield file.relative_to(self._run).as_posix(), [size, _crc(file, size)]

    def _require_sound(self, checkpoint: Checkpoint) -> None:
        for name, (size, crc) in checkpoint.files.items():
            if _crc(self._run / name, size) != crc:
                raise ValueError(f"{name} is not what it was")


def _set_aside(path: Path, state: str, error: Exception) -> None:
    _LOG.warning("%s is %s, so the state before it is taken: %s", path, state, error)
    path.rename(path.with_suffix(".damaged"))


def _crc(path: Path, size: int) -> int:
    """The CRC-32 of the first bytes of a file, or of all if there are fewer."""
    crc = 0
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, _BLOCK))):
            crc, size = crc32(block, crc), size - len(block)
    return crc

"""Checkpoints for resuming a run. The last two are kept; each is written atomically.

A checkpoint is one file. It refers to other files of the run folder: the beginning of `rounds.csv`
and the slots, in which the nodes store snapshots of their personal parameters. The checkpoint
records the size and checksum of each of them and is valid only if all of them match.
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

from fedrec_flower.core.files import atomic_write, child_path, explain_os_errors

_LOG = logging.getLogger(__name__)

_NUM_KEPT = 2  # checkpoints
_DIGEST_BYTES = 32  # of SHA-256
_BLOCK_BYTES = 1 << 20
_JSON_ARRAY = "json"  # name of the array that holds, as JSON, every field that is not an array
_OWNER_ONLY = 0o700  # mode of a folder


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a run between two rounds.

    Attributes:
        round: the last completed round.
        slot: the slot with the personal parameters of that round.
        beside: slots of other rounds that this checkpoint refers to.
        spared: slots that the previous checkpoint needs.
        arrays: arrays of any shape; any names except "json"; the order is restored.
        facts: JSON-able values; floats are restored exactly.
        files: required files: size in bytes, and CRC-32 of that many bytes; set by
            `Checkpoints.write`.
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
    """Serialise a checkpoint: the SHA-256 of the content, and the content in safetensors format."""
    values = {name: getattr(checkpoint, name) for name in _IN_JSON}
    # The order of arrays matters in messages, and safetensors does not keep it.
    text = json.dumps({**values, "order": list(checkpoint.arrays)})
    content = save({**checkpoint.arrays, _JSON_ARRAY: np.frombuffer(text.encode(), np.uint8)})
    return sha256(content).digest(), content


def unpack(packed: bytes) -> Checkpoint:
    """Read a checkpoint that `pack` serialised.

    Raises:
        ValueError: if the content does not match its digest.
        KeyError: if another version of the code wrote it, without a field.
        TypeError: if another version of the code wrote it, with other fields.
    """
    content = memoryview(packed)[_DIGEST_BYTES:]
    if sha256(content).digest() != packed[:_DIGEST_BYTES]:
        raise ValueError("its content does not match its digest")
    arrays = load(bytes(content))
    values = json.loads(arrays.pop(_JSON_ARRAY).tobytes())
    return Checkpoint(arrays={name: arrays[name] for name in values.pop("order")}, **values)


def flat(**groups: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Merge groups of arrays; the names become such as "state/first/item_bias.weight"."""
    return {
        f"{group}/{name}": array
        for group, arrays in groups.items()
        for name, array in arrays.items()
    }


def nested(arrays: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
    """Invert `flat`; an empty or missing group is an empty dict."""
    groups = defaultdict[str, dict[str, NDArray[Any]]](dict)
    for path, array in arrays.items():
        group, _, name = path.partition("/")
        groups[group][name] = array
    return groups


class Checkpoints:
    """The checkpoints of one run.

    Args:
        run: the run's folder; nodes that share the disk with the server keep their parameters in
            its folder `clients`.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._folder = run / "checkpoints"
        self._store = run / "clients"

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then remove all earlier ones except the previous one.

        Raises:
            FedrecError: if the disk is full; the earlier checkpoints are unchanged.
        """
        path = self._folder / f"round-{checkpoint.round}.checkpoint"
        with explain_os_errors(path):
            self._folder.mkdir(_OWNER_ONLY, exist_ok=True)
            files = dict(self._required_files(checkpoint))
        # Private, because a checkpoint records which clients took part in which round.
        with atomic_write(path, private=True) as partial, partial.open("wb") as file:
            file.writelines(pack(replace(checkpoint, files=files)))
            file.flush()
            # After a power failure the file name must not exist without its content.
            os.fsync(file.fileno())
        for old in self._newest_first()[_NUM_KEPT:]:
            old.unlink()

    def newest(self) -> Checkpoint | None:
        """Read the latest valid checkpoint; invalid later ones are renamed, with a warning.

        Returns:
            None if there is no valid checkpoint: then the run must start from the beginning.
        """
        for path in self._newest_first():
            try:
                checkpoint = unpack(path.read_bytes())
                self._require_valid(checkpoint)
            except (OSError, ValueError) as error:
                _set_aside(path, "damaged", error)
            except (KeyError, TypeError, AttributeError) as error:  # complete, but other fields
                _set_aside(path, "of another version of the code", error)
            else:
                return checkpoint
        return None

    def restore(self, checkpoint: Checkpoint) -> None:
        """Set `rounds.csv` and the nodes' parameters back to the state of a checkpoint.

        Other slots of the nodes are removed: they belong to later rounds, which run again.

        Raises:
            FedrecError: if the disk is full; the checkpoint stays valid.
        """
        needed_slots = {checkpoint.slot, *checkpoint.beside, *checkpoint.spared}
        with explain_os_errors(self._store):
            os.truncate(self._run / "rounds.csv", checkpoint.files["rounds.csv"][0])
            for folder in self._store.iterdir() if self._store.exists() else ():
                if folder.is_dir() and folder.name not in needed_slots:
                    shutil.rmtree(folder)
            for file in self._snapshot(checkpoint.slot):
                current = self._store / "current"
                current.mkdir(_OWNER_ONLY, exist_ok=True)
                shutil.copy2(file, current)

    def _newest_first(self) -> list[Path]:
        files = self._folder.glob("round-*.checkpoint")
        return sorted(files, key=lambda file: -int(file.stem.removeprefix("round-")))

    def _snapshot(self, slot: str) -> list[Path]:
        return sorted(child_path(self._store, slot).glob("*.npy"))

    def _required_files(self, checkpoint: Checkpoint) -> Iterator[tuple[str, list[int]]]:
        """Name, size and CRC-32 of the other files that a checkpoint needs, as they are now."""
        slots = (checkpoint.slot, *checkpoint.beside)
        snapshots = [file for slot in slots for file in self._snapshot(slot)]
        for file in (self._run / "rounds.csv", *snapshots):
            size = file.stat().st_size
            yield file.relative_to(self._run).as_posix(), [size, _crc(file, size)]

    def _require_valid(self, checkpoint: Checkpoint) -> None:
        for name, (size, crc) in checkpoint.files.items():
            if _crc(self._run / name, size) != crc:
                raise ValueError(f"{name} has changed")


def _set_aside(path: Path, state: str, error: Exception) -> None:
    _LOG.warning("%s is %s, so the previous checkpoint is used: %s", path, state, error)
    path.rename(path.with_suffix(".damaged"))


def _crc(path: Path, size: int) -> int:
    """CRC-32 of the first `size` bytes of a file, or of the whole file if it is shorter."""
    crc = 0
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, _BLOCK_BYTES))):
            crc = crc32(block, crc)
            size -= len(block)
    return crc

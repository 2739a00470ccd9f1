"""Personal parameters on the node's own disk: memory-mapped, private, in no message."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedrec_flower.errors import FedrecError
from fedrec_flower.models.base import Recommender, Tensors
from fedrec_flower.prepared import ClientData
from fedrec_flower.seeding import generator

_PRIVATE_FILE, _PRIVATE_FOLDER = 0o600, 0o700


class ClientStore:
    """The personal parameters of the clients a node hosts, and what it noted about its users.

    A parameter with a row per user is one array with a row per position; any other personal
    parameter has a row per client. Files are sparse until written, so nodes that share a disk
    may share the folder: each writes the rows of its own clients only.

    Args:
        folder: where the files live; made with mode 700, files with mode 600.
        model: gives names, shapes and initial values; built for a single user.
        names: the parameters kept here.
        num_users: users of the federation.
        num_clients: clients of the federation.
        seed: the experiment's seed, for initial values.
    """

    def __init__(
        self,
        folder: Path,
        model: Recommender,
        names: list[str],
        num_users: int,
        num_clients: int,
        seed: int,
    ) -> None:
        self.folder, self.seed = folder, seed
        self._model, self._names = model, names
        self._rows = {"user": num_users, "client": num_clients}
        self._shapes = {name: tuple(model.get_parameter(name).shape) for name in names}
        self._open: dict[Path, NDArray[Any]] = {}

    def load(self, data: ClientData, slot: str = "current") -> Tensors:
        """The client's personal parameters, as arrays of its own; initial ones at first."""
        if not self._written(slot)[data.client]:
            return self._initial(data)
        return {n: np.array(self._tensor(n, slot)[self._place(n, data)]) for n in self._names}

    def load_users(self, several: Sequence[ClientData], slot: str) -> Tensors:
        """The personal rows of the users of several clients, one client's after another's.

        Possible where every personal parameter has a row per user.
        """
        each = [self.load(data, slot) for data in several]
        return {name: np.concatenate([one[name] for one in each]) for name in self._names}

    def save(self, data: ClientData, tensors: Mapping[str, NDArray[np.float32]]) -> None:
        """Keep the client's personal parameters for its next round."""
        for name in self._names:
            self._tensor(name, "current")[self._place(name, data)] = tensors[name]
        self._written("current")[data.client] = True

    def snapshot(self, clients: range, users: slice, slot: str) -> None:
        """Copy the current parameters of contiguous clients, and their users, into a slot."""
        for name in self._names:
            rows = users if name in self._model.user_rows else slice(clients.start, clients.stop)
            self._tensor(name, slot)[rows] = self._tensor(name, "current")[rows]
        hosted = slice(clients.start, clients.stop)
        self._written(slot)[hosted] = self._written("current")[hosted]

    def note(self, name: str, first: int, num_rows: int, values: NDArray[Any]) -> None:
        """Write rows of a table about users, which the run's owner may read on this disk."""
        shape = (num_rows, *values.shape[1:])
        table = self._array(Path("notes") / f"{name}.npy", shape, values.dtype)
        table[first : first + len(values)] = values

    def _initial(self, data: ClientData) -> Tensors:
        rng = generator(self.seed, "initial-personal", 0, data.client)
        tensors: Tensors = {}
        for name, (first, *rest) in self._shapes.items():
            rows = data.num_users if name in self._model.user_rows else first
            tensors[name] = self._model.initial_value(name, (rows, *rest), rng)
        return tensors

    def _place(self, name: str, data: ClientData) -> slice | int:
        if name in self._model.user_rows:
            return slice(data.first, data.first + data.num_users)
        return data.client

    def _tensor(self, name: str, slot: str) -> NDArray[Any]:
        shape = self._shapes[name]
        if name in self._model.user_rows:
            whole = (self._rows["user"], *shape[1:])
        else:
            whole = (self._rows["client"], *shape)
        return self._array(Path(slot) / f"{name}.npy", whole, np.float32)

    def _written(self, slot: str) -> NDArray[Any]:
        return self._array(Path(slot) / "written.npy", (self._rows["client"],), np.bool_)

    def _array(self, relative: Path, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        path = self.folder / relative
        if path not in self._open:
            _create(path, shape, dtype)
            self._open[path] = np.load(path, mmap_mode="r+")
        return self._open[path]


def _create(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Make a sparse array file unless it exists; of several processes, the first one wins."""
    if path.exists():
        return
    scratch = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        with os.fdopen(os.open(scratch, os.O_CREAT | os.O_RDWR, _PRIVATE_FILE), "wb") as file:
            header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)
        # A link appears whole or not at all, and never replaces what another process made.
        os.link(scratch, path)
    except FileExistsError:
        pass
    except OSError as error:
        raise FedrecError(
            f"cannot keep personal parameters in {path.parent} ({error.strerror}): "
            "free space or choose another output_dir"
        ) from error
    finally:
        scratch.unlink(missing_ok=True)

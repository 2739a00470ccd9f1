"""Personal parameters on the node's own disk: memory-mapped, private, in no message."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkstemp
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedrec_flower.core.errors import FedrecError, TrainingError
from fedrec_flower.core.files import child_path, rename_if_absent
from fedrec_flower.core.random import SECRET_BYTES, Secret, Seed, generator
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import ClientData, starts
from fedrec_flower.models.base import Recommender
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.model_versions import Versions

SECRET_FILE = "secret"  # noqa: S105  # a name, no password

# In no slot: going back to a checkpoint leaves them as they are.
_ANSWERED = "answered.npy"
_ANSWERS = "answers.npy"

_PRIVATE_FOLDER = 0o700


class ClientStore:
    """The personal parameters of the clients a node hosts, and what it noted about its users.

    A parameter with a row per user is one array with a row per position; any other personal
    parameter has a row per client. Beside them lie tuned copies of shared parameters, for models
    whose clients score with what they themselves made of them. Nodes on one machine share the
    folder: each writes the rows of its own clients only.

    Args:
        folder: where the files live; made with mode 700, files with mode 600.
        model: gives names, shapes and initial values; built for a single user.
        names: the personal parameters kept here.
        tuned: the shared parameters of which each client keeps its tuned copy.
        client_offsets: int64 (num_clients + 1,), position of each client's first user.
        seed: what initial values follow from; see `seeding`.
    """

    def __init__(
        self,
        folder: Path,
        model: Recommender,
        names: list[str],
        tuned: list[str],
        client_offsets: NDArray[np.int64],
        seed: Seed,
    ) -> None:
        self.folder, self.seed = folder, seed
        self._model, self._names, self._tuned = model, names, tuned
        self._client_offsets = client_offsets
        self._rows = {"user": int(client_offsets[-1]), "client": len(client_offsets) - 1}
        every = [*names, *tuned]
        self._shapes = {name: tuple(model.get_parameter(name).shape) for name in every}
        self._kept: dict[str, tuple[int, ...]] = {}
        self._open: dict[Path, np.memmap[Any, Any]] = {}

    def load(self, data: ClientData, slot: str = "current") -> Tensors:
        """The personal parameters of a client in full, as arrays of its own, and its tuned copies.

        Several clients read as one give their users' rows one after another, which suffices
        where every personal parameter has a row per user. A client that never trained has no
        tuned copies.
        """
        codes = range(data.client, data.client + data.num_clients)
        first_user = starts(self._users_of(codes))
        loaded = {n: np.array(self._tensor(n, slot)[self._place(n, data)]) for n in self._names}
        for place in np.flatnonzero(~self._written(slot)[codes.start : codes.stop]):
            users = slice(int(first_user[place]), int(first_user[place + 1]))
            for name, value in self._initial(codes[place]).items():
                loaded[name][users if name in self._model.user_rows else ...] = value
        if self._tuned and self._written(slot, "tuned")[data.client]:
            loaded |= {n: np.array(self._tensor(n, slot)[data.client]) for n in self._tuned}
        return loaded

    def gather(self, cohort: Cohort, touched: ActiveRows, slot: str = "current") -> Tensors:
        """The clients' personal parameters, laid out as `training.work.Work.values`."""
        for client in cohort.clients[~self._written(slot)[cohort.clients]]:
            self._write_initial(int(client), slot)
        return {
            name: np.array(self._tensor(name, slot)[self._rows_of(name, cohort, touched)])
            for name in self._names
        }

    def scatter(self, cohort: Cohort, touched: ActiveRows, tensors: Tensors) -> None:
        """Keep the clients' new personal parameters, laid out as `gather` gives them."""
        for name in self._names:
            rows = self._rows_of(name, cohort, touched)
            self._tensor(name, "current")[rows] = tensors[name]

    def keep_tuned(
        self, cohort: Cohort, touched: ActiveRows, given: Versions, change: Tensors
    ) -> None:
        """Keep what the clients made of shared parameters.

        Args:
            cohort: the clients.
            touched: the item rows they touched.
            given: what they were given.
            change: what they changed, laid out as `training.work.Work.values`.
        """
        for name in self._tuned:
            copies = self._tensor(name, "current")
            copies[cohort.clients] = given.whole(name, cohort.clients)
            copies[self._rows_of(name, cohort, touched)] += change[name]
        if self._tuned:
            self._written("current", "tuned")[cohort.clients] = True

    def client_state(
        self, kind: str, shapes: Mapping[str, tuple[int, ...]], tables: frozenset[str]
    ) -> ClientState:
        """A place for what clients keep beside their parameters; part of every later snapshot.

        Args:
            kind: what it is; goes before names in the names of files.
            shapes: full shape of what is kept of each client, by name.
            tables: the names of those with a row per item.
        """
        self._kept |= {f"{kind}.{name}": shape for name, shape in shapes.items()}
        return ClientState(
            shapes, tables, lambda name: self._kept_array(f"{kind}.{name}", "current")
        )

    def snapshot(self, clients: range, users: slice, slot: str, round_: int) -> None:
        """Copy what contiguous clients, and their users, have now, after a round, into a slot."""
        hosted = slice(clients.start, clients.stop)
        for name in self._kept:
            self._kept_array(name, slot)[hosted] = self._kept_array(name, "current")[hosted]
        for name in [*self._names, *self._tuned]:
            rows = users if name in self._model.user_rows else hosted
            self._tensor(name, slot)[rows] = self._tensor(name, "current")[rows]
        for kind in ("written", "tuned"):
            self._written(slot, kind)[hosted] = self._written("current", kind)[hosted]
        self._rounds(slot)[hosted] = round_ + 1

    def require_snapshot(self, clients: Sequence[int], slot: str, round_: int) -> None:
        """Refuse to go back to a round of which clients here kept nothing, or another one since.

        Raises:
            TrainingError: names a client and the round.
        """
        codes = np.array(clients, np.int64)
        for client in codes[self._rounds(slot)[codes] != round_ + 1][:1]:
            raise TrainingError(
                f"client {client} kept no personal parameters of round {round_}, when its node "
                "failed or was silent: the round cannot be evaluated again"
            )

    def unanswered(self, clients: Sequence[int], round_: int) -> list[int]:
        """The clients whose updates have been in no sum of this round or of a later one."""
        last = self._answered()[np.array(clients, np.int64)]
        return [client for client, known in zip(clients, last, strict=True) if known < round_]

    def answer(self, clients: Sequence[int], round_: int) -> None:
        """Remember, whatever checkpoint the run goes back to, that a sum of the round holds them.

        Raises:
            FedrecError: if it cannot be written.
        """
        answered, codes = self._answered(), np.array(clients, np.int64)
        answered[codes] = np.maximum(answered[codes], round_)
        self._flush(answered)

    def count(self, clients: Sequence[int], most: int) -> None:
        """Count an answer of each client, whatever becomes of it, before it is computed.

        Args:
            clients: their codes.
            most: answers of a client, at most.

        Raises:
            TrainingError: names a client that has answered so often; none is counted.
            FedrecError: if it cannot be written.
        """
        answers = self._array(self.folder / _ANSWERS, (self._rows["client"],), np.int64)
        counts = answers + np.bincount(np.array(clients, np.int64), minlength=len(answers))
        for client in np.flatnonzero((counts > most) & (counts > answers))[:1]:
            raise TrainingError(
                f"client {client} has answered {answers[client]} times, and max-epsilon of its "
                f"node allows {most} answers in this run: start a new run"
            )
        answers[:] = counts
        self._flush(answers)

    def note(self, name: str, first: int, num_rows: int, values: NDArray[Any]) -> None:
        """Write rows of a table about users, which the run's owner may read on this disk."""
        shape = (num_rows, *values.shape[1:])
        table = self._array(self._file("notes", name), shape, values.dtype)
        table[first : first + len(values)] = values

    def _initial(self, client: int) -> Tensors:
        rng = generator(self.seed, "initial-personal", 0, client)
        tensors: Tensors = {}
        for name in self._names:
            first, *rest = self._shapes[name]
            per_user = name in self._model.user_rows
            rows = int(self._users_of(range(client, client + 1))[0]) if per_user else first
            tensors[name] = self._model.initial_value(name, (rows, *rest), rng)
        return tensors

    def _write_initial(self, client: int, slot: str) -> None:
        users = slice(*(int(x) for x in self._client_offsets[client : client + 2]))
        for name, value in self._initial(client).items():
            rows = users if name in self._model.user_rows else client
            self._tensor(name, slot)[rows] = value
        self._written(slot)[client] = True

    def _users_of(self, clients: range) -> NDArray[np.int64]:
        """How many users each of neighbouring clients holds."""
        return np.diff(self._client_offsets[clients.start : clients.stop + 1])

    def _place(self, name: str, data: ClientData) -> slice | int:
        if name in self._model.user_rows:
            return slice(data.first, data.first + data.num_users)
        return data.client

    def _rows_of(self, name: str, cohort: Cohort, touched: ActiveRows) -> tuple[NDArray[Any], ...]:
        """Where the cohort's part of a tensor lies, as an index into it."""
        if name in self._model.user_rows:
            counts = np.diff(cohort.user_offsets)
            within = np.arange(cohort.num_users) - np.repeat(cohort.user_offsets[:-1], counts)
            return (np.repeat(cohort.first_users, counts) + within,)
        if name in self._model.item_rows:
            return np.repeat(cohort.clients, np.diff(touched.offsets)), touched.rows
        return (cohort.clients,)

    def _tensor(self, name: str, slot: str) -> NDArray[Any]:
        shape = self._shapes[name]
        if name in self._model.user_rows:
            whole = (self._rows["user"], *shape[1:])
        else:
            whole = (self._rows["client"], *shape)
        return self._array(self._file(slot, name), whole, np.float32)

    def _kept_array(self, name: str, slot: str) -> NDArray[Any]:
        shape = (self._rows["client"], *self._kept[name])
        return self._array(self._file(slot, name), shape, np.float32)

    def _written(self, slot: str, kind: str = "written") -> NDArray[Any]:
        """Which clients have personal parameters here, or "tuned" copies."""
        return self._array(self._file(slot, kind), (self._rows["client"],), np.bool_)

    def _answered(self) -> np.memmap[Any, Any]:
        """int64 (num_clients,): the last round whose sum holds each client's update, or 0."""
        return self._array(self.folder / _ANSWERED, (self._rows["client"],), np.int64)

    def _rounds(self, slot: str) -> NDArray[Any]:
        """One more than the round of which each client's part is; zero where there is none."""
        return self._array(self._file(slot, "round"), (self._rows["client"],), np.int64)

    def _file(self, slot: str, name: str) -> Path:
        return child_path(self.folder, slot) / f"{name}.npy"  # messages name slots

    def _flush(self, array: np.memmap[Any, Any]) -> None:
        """Put on the disk what must be there before a reply leaves, even if the power fails."""
        try:
            array.flush()
        except OSError as error:
            raise FedrecError(
                f"cannot write to {self.folder} ({error.strerror}): free space on its disk"
            ) from error

    def _array(self, path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap[Any, Any]:
        if path not in self._open:
            _create(path, shape, dtype)
            self._open[path] = np.load(path, mmap_mode="r+")
        return self._open[path]


def node_secret(folder: Path) -> Secret:
    """The secret of a node, made by its first use; nodes that share a folder share it.

    It is kept for as long as the folder, so a run that goes on after an interruption draws as it
    would have.

    Args:
        folder: where the node keeps what is personal; the secret is the file `secret` in it.

    Raises:
        FedrecError: if it cannot be written or read, or was removed while clients' parameters
            that follow from it are there.
    """
    path = folder / SECRET_FILE
    # Asked first: what is here was made after the secret, perhaps by another process just now.
    in_use = folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())
    if in_use and not path.exists():
        raise FedrecError(
            f"{path} is missing, though the clients' parameters beside it were drawn from it: "
            "restore it, or start a new run"
        )
    _make_once(path, lambda file: file.write(os.urandom(SECRET_BYTES)))
    try:
        return Secret(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FedrecError(f"{path} cannot be used ({error}): start a new run") from error


def share_secret(source: Path, target: Path) -> None:
    """Let the nodes of a folder draw as those of another, if these have a secret.

    Args:
        source: the folder of nodes that have worked.
        target: a folder whose nodes have not.
    """
    if (source / SECRET_FILE).exists():
        secret = (source / SECRET_FILE).read_bytes()
        _make_once(target / SECRET_FILE, lambda file: file.write(secret))


def keep_first(path: Path, terms: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the first terms that are given, and say what they were.

    Args:
        path: where; a JSON file, made unless it exists.
        terms: numbers and strings by name.

    Raises:
        FedrecError: if the file cannot be written or read.
    """
    text = json.dumps(terms).encode()
    _make_once(path, lambda file: file.write(text))
    try:
        first: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FedrecError(f"{path} cannot be used ({error}): restore it") from error
    return first


def _create(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Make an array file of zeros unless it exists."""

    def write(file: BinaryIO) -> None:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        # Claimed now: a page of a sparse file that finds the disk full later kills the process
        # without a word.
        end = file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize
        file.truncate(end)
        if hasattr(os, "posix_fallocate"):  # macOS has none
            os.posix_fallocate(file.fileno(), 0, end)

    _make_once(path, write)


def _make_once(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Make a file unless it exists; of several processes, the first one wins."""
    if path.exists():
        return
    try:
        path.parent.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        path.parent.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        handle, scratch = mkstemp(prefix=".", dir=path.parent)  # readable by its owner alone
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            rename_if_absent(Path(scratch), path)  # never replaces what another process made
        finally:
            Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise FedrecError(
            f"cannot keep personal parameters in {path.parent} ({error.strerror}): "
            "free space or choose another output_dir"
        ) from error

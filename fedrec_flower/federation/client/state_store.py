"""Personal state of clients on the node's own disk: memory-mapped, private, in no message."""

import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from tempfile import mkstemp
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedrec_flower.core.errors import FedrecError, TrainingError
from fedrec_flower.core.files import child_path, rename_if_absent
from fedrec_flower.core.random import SECRET_BYTES, Secret, Seed
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import ClientData, ranges
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.federation.client.initial_values import InitialValues
from fedrec_flower.models.base import Recommender
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.model_versions import Versions

SECRET_FILE = "secret"  # noqa: S105  # a name, no password

# These files are in no slot: resuming from a checkpoint does not change them.
_LAST_ANSWERED_ROUND = "answered.npy"
_NUM_ANSWERS = "answers.npy"

_PRIVATE_FOLDER = 0o700

_VALUES_AT_ONCE = 1 << 20  # initial values per piece: 8 MB of random bits
_INCOMPLETE = -1  # mark of a client in a slot while it is copied


class ClientStore:
    """The personal parameters of a node's clients, their other state, and per-user records.

    A parameter with a row per user is one array with a row per position. Any other personal
    parameter has a row per client. For models with locally adapted parameters, each client also
    stores its adapted copy of these shared parameters. Nodes on one machine share the folder; each
    node writes only the rows of its own clients.

    Args:
        folder: folder of the files; created with mode 700, its files with mode 600.
        model: defines names, shapes and initial values; built for a single user.
        names: names of the stored personal parameters.
        locally_adapted: names of the shared parameters of which clients store adapted copies.
        client_offsets: int64 (num_clients + 1,), position of each client's first user.
        seed: seed of initial values; see `core.random`.
    """

    def __init__(
        self,
        folder: Path,
        model: Recommender,
        names: list[str],
        locally_adapted: list[str],
        client_offsets: NDArray[np.int64],
        seed: Seed,
    ) -> None:
        self.folder = folder
        self.seed = seed
        self._model = model
        self._names = names
        self._adapted = locally_adapted
        self._client_offsets = client_offsets
        self._num_users = int(client_offsets[-1])
        self._num_clients = len(client_offsets) - 1
        self._shapes = {
            name: tuple(model.get_parameter(name).shape) for name in [*names, *locally_adapted]
        }
        self._initial_values = InitialValues(model, {n: self._shapes[n] for n in names}, seed)
        self._state_shapes: dict[str, tuple[int, ...]] = {}
        self._open: dict[Path, np.memmap[Any, Any]] = {}

    def load(self, data: ClientData, slot: str = "current") -> Tensors:
        """Return copies of one client's personal and locally adapted parameters, in full shapes.

        A client that never trained has no locally adapted parameters.
        """
        personal = self.read(UserBatch.of(data), slot)
        loaded = {n: v if n in self._model.user_rows else v[0] for n, v in personal.items()}
        if self._adapted and self._written(slot, "tuned")[data.client]:
            loaded |= {n: np.array(self._tensor(n, slot)[data.client]) for n in self._adapted}
        return loaded

    def read(self, users: UserBatch, slot: str = "current") -> Tensors:
        """Return copies of the personal parameters of clients; nothing is written.

        Returns:
            By name: a parameter with a row per user (num_users, ...) in the order of the batch, any
            other one (num_clients, ...).
        """
        places = {
            n: users.positions if n in self._model.user_rows else users.clients for n in self._names
        }
        tensors = {n: np.array(self._tensor(n, slot)[place]) for n, place in places.items()}
        unwritten = np.flatnonzero(~self._written(slot)[users.clients])
        if len(unwritten):
            rows = ranges(users.user_offsets[unwritten], users.user_offsets[unwritten + 1])
            for name, values in self._initial(users.clients[unwritten]).items():
                tensors[name][rows if name in self._model.user_rows else unwritten] = values
        return tensors

    def read_adapted(
        self, clients: NDArray[np.int64], given: Versions, slot: str = "current"
    ) -> Tensors:
        """Return the clients' adapted copies of shared parameters, (num_clients, ...) by name.

        Args:
            clients: int64 (num_clients,), client codes.
            given: the shared parameters, used for clients that never trained.
            slot: slot of the copies.
        """
        if not self._adapted:
            return {}
        adapted = {name: np.array(self._tensor(name, slot)[clients]) for name in self._adapted}
        untrained = np.flatnonzero(~self._written(slot, "tuned")[clients])
        for name, copies in adapted.items():
            copies[untrained] = given.whole(name, clients[untrained])
        return adapted

    def gather(self, cohort: Cohort, touched: ActiveRows, slot: str = "current") -> Tensors:
        """Return the clients' personal parameters in the layout of `CohortBatch.values`."""
        self._write_initial(cohort.clients[~self._written(slot)[cohort.clients]], slot)
        return {
            name: np.array(self._tensor(name, slot)[self._rows_of(name, cohort, touched)])
            for name in self._names
        }

    def scatter(self, cohort: Cohort, touched: ActiveRows, tensors: Tensors) -> None:
        """Store the clients' new personal parameters in the layout of `gather`."""
        self._mark_changed(cohort.clients)
        for name in self._names:
            rows = self._rows_of(name, cohort, touched)
            self._tensor(name, "current")[rows] = tensors[name]

    def scatter_valid(self, cohort: Cohort, tensors: Tensors, is_valid: NDArray[np.bool_]) -> None:
        """Store the rows of the users of some of the clients.

        Args:
            cohort: the clients.
            tensors: parameters with a row per user, of all users of the cohort.
            is_valid: bool (num_clients,), the clients to store.
        """
        clients = cohort.clients[is_valid]
        self._mark_changed(clients)
        users, chosen = self._user_rows(clients), np.repeat(is_valid, np.diff(cohort.user_offsets))
        for name in self._names:
            self._tensor(name, "current")[users] = tensors[name][chosen]

    @property
    def keeps_adapted(self) -> bool:
        """Whether clients store adapted copies of shared parameters."""
        return bool(self._adapted)

    def store_adapted(
        self, cohort: Cohort, touched: ActiveRows, global_params: Versions, change: Tensors
    ) -> None:
        """Store the clients' adapted copies of shared parameters.

        Args:
            cohort: the clients.
            touched: the item rows they touched.
            global_params: the parameters that they started from.
            change: their updates, in the layout of `CohortBatch.values`.
        """
        if self._adapted:
            self._mark_changed(cohort.clients)
        for name in self._adapted:
            copies = self._tensor(name, "current")
            copies[cohort.clients] = global_params.whole(name, cohort.clients)
            copies[self._rows_of(name, cohort, touched)] += change[name]
        if self._adapted:
            self._written("current", "tuned")[cohort.clients] = True

    def client_state(
        self, kind: str, shapes: Mapping[str, tuple[int, ...]], tables: frozenset[str]
    ) -> ClientState:
        """Return storage for state that clients keep across rounds; snapshots include it.

        Args:
            kind: kind of the state; the prefix of its file names.
            shapes: full shape of one client's array, by name.
            tables: names of the arrays with a row per item.
        """
        self._state_shapes |= {f"{kind}.{name}": shape for name, shape in shapes.items()}
        return ClientState(
            shapes,
            tables,
            array=lambda name: self._state_array(f"{kind}.{name}", "current"),
            before_write=self._mark_changed,
        )

    def snapshot(self, clients: range, slot: str, round_: int) -> None:
        """Copy the state of consecutive clients after a round into a slot.

        Only clients that changed since the slot was last written are copied.
        """
        hosted = slice(clients.start, clients.stop)
        marks, copied = self._change_marks("current"), self._change_marks(slot)
        changed = clients.start + np.flatnonzero(marks[hosted] != copied[hosted])
        # A process that is killed during the copy leaves no mark that claims a complete copy.
        copied[changed] = _INCOMPLETE
        # Files without a change are created too: a return to the slot replaces all current files.
        for name in self._state_shapes:
            _copy_entries(
                self._state_array(name, "current"), self._state_array(name, slot), changed
            )
        for name in [*self._names, *self._adapted]:
            source, target = self._tensor(name, "current"), self._tensor(name, slot)
            if name in self._model.user_rows:
                rows = self._user_rows(changed)
                target[rows] = source[rows]
            else:
                _copy_entries(source, target, changed)
        for kind in ("written", "tuned"):
            self._written(slot, kind)[hosted] = self._written("current", kind)[hosted]
        copied[changed] = marks[changed]
        self._rounds(slot)[hosted] = round_ + 1

    def require_snapshot(self, clients: Sequence[int], slot: str, round_: int) -> None:
        """Check that a slot holds the clients' state of a round.

        Raises:
            TrainingError: names a client without it, and the round.
        """
        codes = np.array(clients, np.int64)
        for client in codes[self._rounds(slot)[codes] != round_ + 1][:1]:
            raise TrainingError(
                f"client {client} has no snapshot of round {round_}, because its node failed or "
                "was silent: the round cannot be evaluated again"
            )

    def unanswered(self, clients: Sequence[int], round_: int) -> list[int]:
        """Return the clients whose updates were in no sum of this round or of a later one."""
        last = self._answered()[np.array(clients, np.int64)]
        pairs = zip(clients, last, strict=True)
        return [client for client, last_round in pairs if last_round < round_]

    def mark_answered(self, clients: Sequence[int], round_: int) -> None:
        """Record that a sum of the round includes the clients; no checkpoint reverts this.

        Raises:
            FedrecError: if it cannot be written.
        """
        answered, codes = self._answered(), np.array(clients, np.int64)
        answered[codes] = np.maximum(answered[codes], round_)
        self._flush(answered)

    def count_answers(self, clients: Sequence[int], max_answers: int) -> None:
        """Count one answer of each client, before the answer is computed.

        Args:
            clients: their codes.
            max_answers: maximum number of answers of a client.

        Raises:
            TrainingError: names a client that has reached the maximum; no answer is counted then.
            FedrecError: if it cannot be written.
        """
        answers = self._array(self.folder / _NUM_ANSWERS, (self._num_clients,), np.int64)
        counts = answers + np.bincount(np.array(clients, np.int64), minlength=len(answers))
        for client in np.flatnonzero((counts > max_answers) & (counts > answers))[:1]:
            raise TrainingError(
                f"client {client} has answered {answers[client]} times, and max-epsilon of its "
                f"node allows {max_answers} answers in this run: start a new run"
            )
        answers[:] = counts
        self._flush(answers)

    def write_records(
        self, name: str, places: NDArray[np.int64], num_rows: int, values: NDArray[Any]
    ) -> None:
        """Write rows of a per-user table to this disk, where the run's owner may read it.

        Args:
            name: column name.
            places: int64 (n,), indices of the rows.
            num_rows: rows of the whole table.
            values: (n, ...), the rows.
        """
        shape = (num_rows, *values.shape[1:])
        self._array(self._file("notes", name), shape, values.dtype)[places] = values

    def _initial(self, clients: NDArray[np.int64]) -> Tensors:
        return self._initial_values.of(clients, np.diff(self._client_offsets)[clients])

    def _write_initial(self, clients: NDArray[np.int64], slot: str) -> None:
        """Write the initial values of clients that have no personal parameters yet."""
        if slot == "current" and len(clients):
            self._mark_changed(clients)
        num_values = sum(prod(shape) for shape in self._shapes.values())
        size = max(1, _VALUES_AT_ONCE // max(num_values, 1))
        for start in range(0, len(clients), size):
            part = clients[start : start + size]
            for name, values in self._initial(part).items():
                rows = self._user_rows(part) if name in self._model.user_rows else part
                self._tensor(name, slot)[rows] = values
            self._written(slot)[part] = True

    def _user_rows(self, clients: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of the clients' users, client after client."""
        return ranges(self._client_offsets[clients], self._client_offsets[clients + 1])

    def _rows_of(self, name: str, cohort: Cohort, touched: ActiveRows) -> tuple[NDArray[Any], ...]:
        """Return the index of the cohort's part of a tensor."""
        if name in self._model.user_rows:
            return (self._user_rows(cohort.clients),)
        if name in self._model.item_rows:
            return np.repeat(cohort.clients, np.diff(touched.offsets)), touched.rows
        return (cohort.clients,)

    def _tensor(self, name: str, slot: str) -> NDArray[Any]:
        shape = self._shapes[name]
        if name in self._model.user_rows:
            whole = (self._num_users, *shape[1:])
        else:
            whole = (self._num_clients, *shape)
        return self._array(self._file(slot, name), whole, np.float32)

    def _state_array(self, name: str, slot: str) -> NDArray[Any]:
        shape = (self._num_clients, *self._state_shapes[name])
        return self._array(self._file(slot, name), shape, np.float32)

    def _written(self, slot: str, kind: str = "written") -> NDArray[Any]:
        """Return which clients have personal parameters in a slot, or adapted copies ("tuned")."""
        return self._array(self._file(slot, kind), (self._num_clients,), np.bool_)

    def _answered(self) -> np.memmap[Any, Any]:
        """Return the last round with each client in its sum, or 0; int64 (num_clients,)."""
        return self._array(self.folder / _LAST_ANSWERED_ROUND, (self._num_clients,), np.int64)

    def _rounds(self, slot: str) -> NDArray[Any]:
        """Return the round of each client's snapshot plus one, or 0 without one."""
        return self._array(self._file(slot, "round"), (self._num_clients,), np.int64)

    def _change_marks(self, slot: str) -> NDArray[Any]:
        """Return the mark of each client's last change, int64 (num_clients,); 0 for no change.

        In a slot it is the mark of the change that the slot contains. Marks are random, because
        rounds repeat: a run that returns to a checkpoint trains later rounds again.
        """
        path = self._file(slot, "change")
        # Only a snapshot has rounds. One without marks was made by an earlier version of the code.
        unmarked = path not in self._open and self._file("current", "round").exists()
        unmarked = unmarked and slot == "current" and not path.exists()
        marks = self._array(path, (self._num_clients,), np.int64)
        if unmarked:
            marks[:] = _new_mark()
        return marks

    def _mark_changed(self, clients: NDArray[np.int64]) -> None:
        """Mark clients as changed, before their state is written."""
        self._change_marks("current")[clients] = _new_mark()

    def _file(self, slot: str, name: str) -> Path:
        return child_path(self.folder, slot) / f"{name}.npy"  # the slot comes from a message

    def _flush(self, array: np.memmap[Any, Any]) -> None:
        """Write to the disk before a reply is sent, so that a power failure does not lose it."""
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
    """Return the secret of a node, created on first use; nodes that share a folder share it.

    It exists as long as the folder, so a resumed run makes the same draws.

    Args:
        folder: folder of the personal state; the secret is the file `secret` in it.

    Raises:
        FedrecError: if it cannot be written or read, or was removed while clients' parameters
            that were drawn from it exist.
    """
    path = folder / SECRET_FILE
    # Checked first: another process may create the secret, and then folders, at any time.
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
    """Copy the secret of one folder to another, if there is one, for the same draws.

    Args:
        source: folder of nodes that have run.
        target: folder of nodes that have not run.
    """
    if (source / SECRET_FILE).exists():
        secret = (source / SECRET_FILE).read_bytes()
        _make_once(target / SECRET_FILE, lambda file: file.write(secret))


def keep_first(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write settings to a file unless it exists, and return the settings in the file.

    Args:
        path: path of the JSON file.
        settings: numbers and strings by name.

    Raises:
        FedrecError: if the file cannot be written or read.
    """
    text = json.dumps(settings).encode()
    _make_once(path, lambda file: file.write(text))
    try:
        first: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FedrecError(f"{path} cannot be used ({error}): restore it") from error
    return first


def _copy_entries(source: NDArray[Any], target: NDArray[Any], clients: NDArray[np.int64]) -> None:
    """Copy the clients' entries; one by one, without a copy of all of them in memory."""
    for client in clients:
        target[client] = source[client]


def _new_mark() -> int:
    """Draw a mark of a change; positive, and different from all others."""
    return 1 + secrets.randbits(62)


def _create(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> None:
    """Create an array file of zeros unless it exists."""

    def write(file: BinaryIO) -> None:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        file.flush()
        # Space is allocated now: a write to a page of a sparse file on a full disk would kill the
        # process without a message.
        end = file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize
        file.truncate(end)
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, end)

    _make_once(path, write)


def _make_once(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create a file unless it exists; of several processes, the first one succeeds."""
    if path.exists():
        return
    try:
        path.parent.parent.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
        path.parent.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)
        handle, scratch = mkstemp(prefix=".", dir=path.parent)  # readable by its owner only
        try:
            with os.fdopen(handle, "wb") as file:
                write(file)
            rename_if_absent(Path(scratch), path)  # never replaces the file of another process
        finally:
            Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise FedrecError(
            f"cannot store personal parameters in {path.parent} ({error.strerror}): "
            "free space or choose another output_dir"
        ) from error

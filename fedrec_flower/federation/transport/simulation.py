"""Flower's simulation engine: nodes are Ray actors on this machine or on a Ray cluster.

Flower's simulation looks for messages ten times a second; here it is told of them.

Flower talks a lot; what it says belongs in a file, beside the progress bar it would tear.
"""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import psutil
from flwr.app import Context
from flwr.server.superlink.fleet.vce import vce_api
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from ray._private import utils as ray_utils

from fedrec_flower.core.cpu import allowed_cores
from fedrec_flower.core.errors import FedrecError, require
from fedrec_flower.core.signals import handled_by
from fedrec_flower.federation.client.app import app as client_app
from fedrec_flower.federation.transport.stoppable import StoppableGrid


@contextmanager
def attentive(mail: threading.Event) -> Iterator[None]:
    """Let the engine look for messages whenever `mail` is set, as well as ten times a second.

    This touches an internal of Flower, the function in which it looks and waits; a test holds it
    against the pinned version.
    """
    patient: Callable[..., None] = vce_api.add_messages_to_queue

    def look(*arguments: Any, **named: Any) -> None:
        *others, stop = arguments
        patient(*others, _Bell(stop, mail), **named)

    vce_api.add_messages_to_queue = look
    try:
        yield
    finally:
        vce_api.add_messages_to_queue = patient


class _Bell:
    """The engine's own event, but mail ends the wait between two looks.

    Args:
        stop: the engine's event, set when it is to end.
        mail: set when there are messages.
    """

    def __init__(self, stop: threading.Event, mail: threading.Event) -> None:
        self._stop, self._mail = stop, mail

    def is_set(self) -> bool:
        """Whether the engine is to end."""
        return self._stop.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for mail, or for the time to pass."""
        self._mail.wait(timeout)
        self._mail.clear()  # whatever is pushed from here on is seen by the look that follows
        return self._stop.is_set()


@contextmanager
def flower_logs_to(path: Path, *, beside: bool = False) -> Iterator[None]:
    """Send the log of Flower to a file for as long as the context lasts.

    Args:
        path: the file.
        beside: whether the log also goes where it went before.
    """
    logger = logging.getLogger("flwr")
    handlers, propagate = logger.handlers[:], logger.propagate
    file = logging.FileHandler(path, delay=False)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if beside:
        logger.handlers = [*handlers, file]
    else:
        logger.handlers, logger.propagate = [file], False
    try:
        yield
    finally:
        file.close()
        logger.handlers, logger.propagate = handlers, propagate


_GLANCE = 0.005  # seconds between looks for replies; Flower's own grid waits 0.1
_PATIENCE = 3.0  # seconds that an interrupted run leaves its nodes to finish what they compute


@dataclass(frozen=True, slots=True)
class Simulation:
    """`federation=simulation`: the default.

    Attributes:
        num_nodes: how many nodes host the clients; see the package for what depends on it.
        num_cpus: CPUs that one node takes while it works.
        num_gpus: GPUs that one node takes while it works, fractions allowed.
        address: of a running Ray cluster, such as "ray://head:10001"; None starts Ray here.
    """

    num_nodes: int
    num_cpus: float
    num_gpus: float
    address: str | None

    def __post_init__(self) -> None:
        """Refuse resources that no worker can have."""
        require(self.num_cpus > 0, f"federation.num_cpus must be above 0: {self.num_cpus}")
        require(self.num_gpus >= 0, f"federation.num_gpus must not be negative: {self.num_gpus}")

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Start the engine, give the server's side its grid, wait, stop the engine.

        Args:
            serve: runs in the engine's server thread; its exception is raised here.
            log: file for the log of Flower.
        """
        stop, mail, server = threading.Event(), threading.Event(), ServerApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            del context
            serve(StoppableGrid(grid, self.num_nodes, _GLANCE, stop, mail))

        try:
            with (
                flower_logs_to(log),
                attentive(mail),
                _interrupted_gently(stop),
                warnings.catch_warnings(),
            ):
                # Ray's announcement concerns nobody who does not ask for part of a GPU.
                warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
                run_simulation(server, client_app, self.num_nodes, backend_config=self._backend())
        except RuntimeError as error:
            raise FedrecError(
                f"Flower's simulation engine failed ({_root(error)}): {log} tells more, and "
                "federation=in_process does without the engine"
            ) from error
        finally:
            # The server thread would otherwise wait for replies of nodes that are gone.
            stop.set()

    def _backend(self) -> dict[str, Any]:
        init: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
        if self.address is None:
            # Without it, Ray would join whatever other run has started on this machine.
            init["address"] = "local"
            # No more workers than nodes: an idle worker still holds a few hundred megabytes.
            useful = ceil(self.num_nodes * self.num_cpus)
            init["num_cpus"] = min(useful, max(allowed_cores(), ceil(self.num_cpus)))
        else:
            init["address"] = self.address
        resources = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        return {"init_args": init, "client_resources": resources}


def _root(error: BaseException) -> str:
    """What began it all, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".partition("\n")[0]


@contextmanager
def _interrupted_gently(stop: threading.Event) -> Iterator[None]:
    """Let Ctrl-C set the event, and become a KeyboardInterrupt once the engine has stopped.

    So do the other signals that end a job. Raised in the midst of the engine, it would make
    Flower shut Ray down under threads that wait for Ray, and the process would never end. A
    second signal is obeyed at once all the same.
    """
    impatient = threading.Timer(_PATIENCE, _kill_workers)

    def interrupt(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        impatient.start()

    # Ray would put a handler of SIGTERM of its own in the place of ours, twice.
    rays, ray_utils.set_sigterm_handler = ray_utils.set_sigterm_handler, _keep_ours
    try:
        with handled_by(interrupt):
            yield
    except Exception:
        if stop.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        ray_utils.set_sigterm_handler = rays
        impatient.cancel()
    if stop.is_set():
        raise KeyboardInterrupt


def _keep_ours(handler: object) -> None:
    del handler


def _kill_workers() -> None:
    """End the workers on this machine, so that nobody waits for what they compute."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::ClientAppActor"):
            process.kill()

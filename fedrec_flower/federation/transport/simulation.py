"""Flower's simulation engine: nodes are Ray actors on this machine or on a Ray cluster."""

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
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation
from ray._private import utils as ray_utils

from fedrec_flower.core.cpu import allowed_cores
from fedrec_flower.core.errors import FedrecError, require
from fedrec_flower.core.signals import handle_signals
from fedrec_flower.federation.client.app import app as client_app
from fedrec_flower.federation.transport.flower_log import flower_logs_to
from fedrec_flower.federation.transport.simulation_wakeup import wake_on_message
from fedrec_flower.federation.transport.stoppable import StoppableGrid

_POLL_SECONDS = 0.005  # between two polls for replies; Flower's own grid waits 0.1
_STOP_SECONDS = 3.0  # an interrupted run gives its nodes this time to finish their computation


@dataclass(frozen=True, slots=True)
class Simulation:
    """`federation=simulation`, the default transport.

    Attributes:
        num_nodes: number of nodes that host the clients. Results depend on it by rounding only,
            see the package docstring.
        num_cpus: CPUs that one node uses while it computes.
        num_gpus: GPUs that one node uses while it computes; fractions are allowed.
        address: address of a running Ray cluster, such as "ray://head:10001"; None starts Ray on
            this machine.
    """

    num_nodes: int
    num_cpus: float
    num_gpus: float
    address: str | None

    def __post_init__(self) -> None:
        """Check the resources of a node."""
        require(self.num_cpus > 0, f"federation.num_cpus must be above 0: {self.num_cpus}")
        require(self.num_gpus >= 0, f"federation.num_gpus must not be negative: {self.num_gpus}")

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Start the engine, call `serve` with its grid, wait, and stop the engine.

        Args:
            serve: the server; runs in the engine's server thread. Its exception is raised here.
            log: file for Flower's log.

        Raises:
            FedrecError: if Flower's engine fails.
        """
        stop = threading.Event()
        new_messages = threading.Event()
        server = ServerApp()

        @server.main()
        def main(grid: Grid, context: Context) -> None:
            del context
            serve(StoppableGrid(grid, self.num_nodes, _POLL_SECONDS, stop, new_messages))

        try:
            with (
                flower_logs_to(log),
                wake_on_message(new_messages),
                _stop_on_signal(stop),
                warnings.catch_warnings(),
            ):
                # Ray's announcement concerns runs that request a fraction of a GPU.
                warnings.filterwarnings("ignore", "Tip: In future versions of Ray", FutureWarning)
                run_simulation(server, client_app, self.num_nodes, backend_config=self._backend())
        except RuntimeError as error:
            raise FedrecError(
                f"Flower's simulation engine failed ({_root_cause(error)}): read {log}, or choose "
                "federation=in_process, which does not use the engine"
            ) from error
        finally:
            # Otherwise the server thread would wait for replies of nodes that have ended.
            stop.set()

    def _backend(self) -> dict[str, Any]:
        init: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
        if self.address is None:
            # Without it, Ray would join a cluster that another run has started on this machine.
            init["address"] = "local"
            # Not more workers than nodes: an idle worker still uses a few hundred megabytes.
            max_useful_cpus = ceil(self.num_nodes * self.num_cpus)
            init["num_cpus"] = min(max_useful_cpus, max(allowed_cores(), ceil(self.num_cpus)))
        else:
            init["address"] = self.address
        resources = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        return {"init_args": init, "client_resources": resources}


def _root_cause(error: BaseException) -> str:
    """Return the first exception of the chain, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".partition("\n")[0]


@contextmanager
def _stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Set the event on Ctrl-C, and raise KeyboardInterrupt after the engine has stopped.

    The other signals that end a job are handled in the same way. If the exception were raised
    inside the engine, Flower would shut Ray down while threads wait for Ray, and the process would
    never end. A second signal raises at once.
    """
    kill_timer = threading.Timer(_STOP_SECONDS, _kill_workers)

    def interrupt(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        kill_timer.start()

    # Otherwise Ray would replace our SIGTERM handler by its own, twice.
    set_sigterm_handler = ray_utils.set_sigterm_handler
    ray_utils.set_sigterm_handler = _ignore_handler
    try:
        with handle_signals(interrupt):
            yield
    except Exception:
        if stop.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        ray_utils.set_sigterm_handler = set_sigterm_handler
        kill_timer.cancel()
    if stop.is_set():
        raise KeyboardInterrupt


def _ignore_handler(handler: object) -> None:
    del handler


def _kill_workers() -> None:
    """Kill the workers on this machine, so that the run does not wait for their computation."""
    for process in psutil.Process().children(recursive=True):
        if process.name().startswith("ray::ClientAppActor"):
            process.kill()

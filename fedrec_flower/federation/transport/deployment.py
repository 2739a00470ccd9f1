"""A real federation: SuperNodes on their own machines, reached through Flower's SuperLink."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from fedrec_flower.core.errors import require
from fedrec_flower.federation.transport.flower_log import flower_logs_to
from fedrec_flower.federation.transport.stoppable import StoppableGrid

_POLL_SECONDS = 0.5  # between two polls for replies; Flower's own grid waits 3


@dataclass(frozen=True, slots=True)
class Deployment:
    """`federation=deployment`; only `flwr run` can start it.

    Attributes:
        grid: the grid that Flower passes to the ServerApp.
        patience: time in seconds to wait, before the first round, for nodes that host all clients.
    """

    grid: Grid
    patience: float

    def __post_init__(self) -> None:
        """Check the patience."""
        require(self.patience >= 0, f"federation.patience must not be negative: {self.patience}")

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Call `serve` with the grid; Flower's log goes to the file and to its usual handlers."""
        stop = threading.Event()
        new_messages = threading.Event()
        grid = StoppableGrid(self.grid, 0, _POLL_SECONDS, stop, new_messages)
        with flower_logs_to(log, keep_handlers=True):
            serve(grid)

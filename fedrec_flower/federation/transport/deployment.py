"""A real federation: SuperNodes on machines of their own, reached through Flower's SuperLink."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flwr.serverapp import Grid

from fedrec_flower.core.errors import require
from fedrec_flower.federation.transport.simulation import flower_logs_to
from fedrec_flower.federation.transport.stoppable import StoppableGrid

_GLANCE = 0.5  # seconds between looks for replies; Flower's own grid waits 3


@dataclass(frozen=True, slots=True)
class Deployment:
    """`federation=deployment`: what `flwr run` starts, and nothing else can.

    Attributes:
        grid: the grid that Flower gives the ServerApp.
        patience: seconds to wait, before the first round, for nodes that host all clients.
    """

    grid: Grid
    patience: float

    def __post_init__(self) -> None:
        """Refuse a patience that cannot be."""
        require(self.patience >= 0, f"federation.patience must not be negative: {self.patience}")

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Serve over the grid; Flower's log goes to the file and to whoever started the run."""
        grid = StoppableGrid(self.grid, 0, _GLANCE, threading.Event(), threading.Event())
        with flower_logs_to(log, beside=True):
            serve(grid)

"""The interface of transports, and the function that runs a federation over one."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flwr.serverapp import Grid

from fedrec_flower.core.types import Tensors
from fedrec_flower.federation.results import Outcome
from fedrec_flower.federation.server.loop import Server


class Transport(Protocol):
    """Carries messages between the server and the nodes; named by a `conf/federation/*.yaml`."""

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Call `serve` with a grid and wait for it.

        Args:
            serve: the server.
            log: file for Flower's log.
        """
        ...


def federate(transport: Transport, server: Server, initial: Tensors, log: Path) -> Outcome:
    """Run a federation until its last round is evaluated.

    Args:
        transport: carries the messages.
        server: runs the rounds.
        initial: initial shared parameters.
        log: file for Flower's log.
    """
    outcomes: list[Outcome] = []

    def serve(grid: Grid) -> None:
        outcomes.append(server.run(grid, initial))

    transport.run(serve, log)
    return outcomes[0]

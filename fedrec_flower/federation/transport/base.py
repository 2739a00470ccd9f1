"""What every engine is, and the one thing done with it."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flwr.serverapp import Grid

from fedrec_flower.core.types import Tensors
from fedrec_flower.federation.server.loop import FederatedStrategy
from fedrec_flower.federation.server.plan import Outcome


class Engine(Protocol):
    """What carries messages: every class that a `conf/federation/*.yaml` names."""

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """Give `serve` a grid and wait for it; Flower's log goes to the file."""
        ...


def federate(engine: Engine, strategy: FederatedStrategy, initial: Tensors, log: Path) -> Outcome:
    """Let an engine carry a strategy's messages until the last round is evaluated.

    Args:
        engine: carries the messages.
        strategy: decides what they say.
        initial: initial shared parameters.
        log: file for Flower's log.
    """
    outcomes: list[Outcome] = []

    def serve(grid: Grid) -> None:
        outcomes.append(strategy.run(grid, initial))

    engine.run(serve, log)
    return outcomes[0]

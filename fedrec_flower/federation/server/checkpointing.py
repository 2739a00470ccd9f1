"""The server's state from round to round, and its checkpoints."""

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.checkpoint import Checkpoint, flat, nested
from fedrec_flower.core.types import Tensors
from fedrec_flower.federation.server.model_selection import ModelSelection
from fedrec_flower.privacy.mechanism import ServerMechanism
from fedrec_flower.strategies.base import FederatedStrategy


@dataclass(slots=True)
class ServerState:
    """The state that the server accumulates over the rounds, independent of the strategy.

    Attributes:
        participated: int64 (num_clients,), number of cohorts that contained each client.
        round: the last round that was begun.
        parameters: the global parameters.
        bytes_up: bytes of all updates received so far.
        failures: number of missing or rejected replies so far, by kind.
        seconds: wall time spent in "train" and in "evaluate".
    """

    participated: NDArray[np.int64]
    round: int = 0
    parameters: Tensors = field(default_factory=dict)
    bytes_up: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=lambda: {"train": 0.0, "evaluate": 0.0})

    @classmethod
    def initial(cls, num_clients: int) -> Self:
        """Return the state before the first round."""
        return cls(np.zeros(num_clients, np.int64))

    def add_seconds(self, phase: str, started: float) -> None:
        """Add the wall time since `started`, a value of `perf_counter`, to a phase."""
        self.seconds[phase] += perf_counter() - started


def take_checkpoint(
    state: ServerState,
    strategy: FederatedStrategy,
    selection: ModelSelection,
    curator: ServerMechanism,
    slot: str,
) -> Checkpoint:
    """Collect the state that is needed to resume the run after the current round.

    Args:
        state: the server's state.
        strategy: the algorithm.
        selection: the selected round so far.
        curator: the server's side of privacy.
        slot: name of the snapshot that the nodes keep of the current round.
    """
    other_slots, earlier_slots = selection.hold(slot)
    best = selection.selected
    arrays = flat(
        parameters=state.parameters,
        state=strategy.state(),
        selected={} if best.round == state.round else best.parameters,
        server={"participated": state.participated.copy()},
        privacy=curator.state(),
    )
    facts = {
        "selection": selection.facts(),
        "seconds": dict(state.seconds),
        "bytes_up": state.bytes_up,
        "lost": dict(state.failures),
    }
    return Checkpoint(state.round, slot, other_slots, earlier_slots, arrays, facts)


def restore_checkpoint(
    checkpoint: Checkpoint,
    strategy: FederatedStrategy,
    selection: ModelSelection,
    curator: ServerMechanism,
) -> ServerState:
    """Restore strategy, selection and privacy, and return the server's state of a checkpoint."""
    tensors, facts = nested(checkpoint.arrays), checkpoint.facts
    parameters = tensors["parameters"]
    strategy.restore(tensors["state"])
    selection.restore(facts["selection"], tensors["selected"] or parameters)
    curator.restore(tensors["privacy"])
    return ServerState(
        participated=tensors["server"]["participated"],
        round=checkpoint.round,
        parameters=parameters,
        bytes_up=facts["bytes_up"],
        failures=Counter(facts["lost"]),
        seconds=dict(facts["seconds"]),
    )

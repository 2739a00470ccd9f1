"""What the server remembers from round to round: given as checkpoints, taken up from them."""

import logging
from collections import Counter

import numpy as np
from flwr.serverapp import Grid

from fedrec_flower.core.checkpoint import Checkpoint, flat, nested
from fedrec_flower.core.types import Tensors
from fedrec_flower.federation.server.evaluation import EvaluatingStrategy
from fedrec_flower.federation.server.plan import Observer, Plan

_LOG = logging.getLogger(__name__)


class ResumableStrategy(EvaluatingStrategy):
    """The memory of every strategy; see `base.FederatedStrategy` for the rest.

    Args:
        plan: the run.
        observer: hears of every round, and of every checkpoint.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        super().__init__(plan, observer)
        self._participated = np.zeros(plan.num_clients, np.int64)
        self._bytes_up, self._lost = 0, Counter[str]()

    def state(self) -> Tensors:
        """What the server keeps from round to round beside the parameters, for a checkpoint."""
        return {}

    def restore(self, state: Tensors) -> None:
        """Take up what `state` gave."""
        del state

    def _keep(self, grid: Grid) -> None:
        """Give a checkpoint every few rounds and after the last one, if every node can go back."""
        every = self.plan.checkpoint_every
        if every is None or (self._round % every and not self._is_over()):
            return
        if not self._snapshot(grid, self._round):
            _LOG.warning(
                "round %d: no checkpoint, for %d nodes did not keep their clients' parameters",
                self._round,
                len(self._unkept),
            )
            return
        beside, spared = self._selection.hold(self._slot)
        best = self._selection.selected
        arrays = flat(
            parameters=self._parameters,
            state=self.state(),
            selected={} if best.round == self._round else best.parameters,
            server={"participated": self._participated.copy()},
            privacy=self.plan.curator.state(),
        )
        facts = {
            "selection": self._selection.facts(),
            "seconds": dict(self._seconds),
            "bytes_up": self._bytes_up,
            "lost": dict(self._lost),
        }
        self.observer.reached(Checkpoint(self._round, self._slot, beside, spared, arrays, facts))

    def resume(self, checkpoint: Checkpoint) -> None:
        """Let `run` go on after the round of a checkpoint, whichever process gave it."""
        tensors, facts = nested(checkpoint.arrays), checkpoint.facts
        self._round, self._parameters = checkpoint.round, tensors["parameters"]
        self.restore(tensors["state"])
        selected = tensors["selected"] or self._parameters
        self._selection.restore(facts["selection"], selected)
        self._participated = tensors["server"]["participated"]
        self.plan.curator.restore(tensors["privacy"])
        self._seconds, self._bytes_up = dict(facts["seconds"]), facts["bytes_up"]
        self._lost = Counter(facts["lost"])

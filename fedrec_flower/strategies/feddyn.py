"""FedDyn: dynamic regularization of the clients' losses. Source: Acar et al. 2021, Algorithm 1.

Server half: `FedDyn`. Client half: `FedDynUpdate`. A client adds alpha / learning rate * (value -
global value) to its gradients and subtracts the gradient of its loss at the end of its last round,
which it stores. The paper's alpha is this one over the learning rate, as in `fedprox`. The server
moves to the mean of the clients' parameters plus the accumulated updates, the paper's -h / alpha:
each round adds the cohort's mean update times the cohort's share of all clients. Messages are as
large as in plain averaging.

The accumulated mean is over all clients, independent of `aggregation`, because a client that does
not touch a row does not move it. Both means are weighted by `num_examples` by
default, uniformly, as in the paper, with `weighting=uniform`. A row that no client touches in a
round does not move.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates, UpdateSum, mean_over_all_clients
from fedrec_flower.strategies.base import (
    Aggregation,
    FederatedStrategy,
    FederationInfo,
    RoundInfo,
)
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.strategies.client_updates import LocalUpdateRule, Weighting, require_sgd
from fedrec_flower.training.trainer import Trained


class FedDyn(FederatedStrategy):
    """Moves by the mean update plus the accumulated mean updates.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        weighting: see `LocalUpdateRule`.
        alpha: share of its distance from the global value that each step takes back, in (0, 1].

    Raises:
        ConfigError: if clients do not train by SGD.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Weighting,
        alpha: Annotated[float, Field(gt=0, le=1)],
    ) -> None:
        require_sgd(info.optimizer, "feddyn")
        super().__init__(info, aggregation)
        self.alpha = alpha
        self._weighting: Weighting = weighting
        self._accumulated: Tensors = {}

    @property
    @override
    def needs_row_weights(self) -> bool:
        """True: rows that no client touched do not move."""
        return True

    @override
    def client_update(self) -> LocalUpdateRule:
        return FedDynUpdate(proximal=self.alpha, weighting=self._weighting)

    @override
    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        share = np.float32(round_.num_replied / self.info.num_clients)
        untouched = np.flatnonzero(total.row_weight == 0)
        update = self.mean(total)
        for name, mean in mean_over_all_clients(total).items():
            before = self._accumulated.get(name, np.float32(0))
            self._accumulated[name] = before + share * mean
            accumulated = self._accumulated[name].copy()
            if name in self.info.item_tables:
                accumulated[untouched] = 0
            update[name] = update[name] + accumulated
        return self.apply_update(parameters, update)

    @override
    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        return {name: value + update[name] for name, value in parameters.items()}

    @override
    def state(self) -> Tensors:
        """The accumulated updates."""
        return dict(self._accumulated)

    @override
    def restore(self, state: Tensors) -> None:
        self._accumulated = dict(state)


@dataclass(frozen=True, slots=True)
class FedDynUpdate(LocalUpdateRule):
    """Every local step subtracts the stored gradient g_k; `proximal` is alpha.

    After a round, g_k <- g_k - alpha / learning rate * update, the gradient of the client's loss
    where it stopped.
    """

    state_name: ClassVar[str] = "gradient"

    @override
    def linear_term(self, layout: Updates, server_control: Tensors, state: ClientState) -> Tensors:
        return {name: -state.read(name, layout) for name in state.shapes}

    @override
    def updates_to_send(
        self, trained: Trained, server_control: Tensors, state: ClientState
    ) -> Updates:
        updates = trained.updates
        for name, update in updates.tensors.items():
            rate = trained.rates[name]
            if rate:
                factor = np.float32(self.proximal / rate)
                state.write(name, updates, state.read(name, updates) - factor * update)
        return updates

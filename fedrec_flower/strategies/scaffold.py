"""SCAFFOLD: control variates correct client drift. Source: Karimireddy et al. 2020, Algorithm 1.

Server half: `Scaffold`. Client half: `ScaffoldUpdate`. Control variates travel to the clients and
their changes travel back, as many bytes as the parameters each way; every client's own control
variate stays on its node's disk.

The server's control variate c is the mean of all clients' control variates c_k. The mean is
weighted as the updates are: by `num_examples` by default, uniformly, as in the paper, with
`weighting=uniform`. A round adds the cohort's mean change of c_k times the cohort's share of all
clients. This mean is over all clients, row by row, independent of `aggregation`, because a client
that touches no sample of an item has gradient and control variate 0 there. Clients are corrected
only on the rows they touch. At convergence c is 0 and the clients' gradients cancel, as in the
paper; before that, rows that few clients touch move as slowly as under "all_clients".
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from typing_extensions import override

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates, UpdateSum, mean_over_all_clients
from fedrec_flower.strategies.aggregators.server_optimizers import ServerOptimizer
from fedrec_flower.strategies.base import Aggregation, FederationInfo, RoundInfo
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.strategies.client_updates import (
    LocalUpdateRule,
    Weighting,
    broadcast_per_client,
    copies_per_client,
    require_sgd,
)
from fedrec_flower.strategies.fedopt import FedOpt
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX
from fedrec_flower.training.trainer import Trained

_STATE_PREFIX = "control/"


class Scaffold(FedOpt):
    """Averages the corrected updates and the changes of the clients' control variates.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        weighting: see `LocalUpdateRule`.
        server_optimizer: the server's optimizer; the paper averages.

    Raises:
        ConfigError: if clients do not train by SGD.
    """

    uses_only_the_sum: ClassVar[bool] = False  # it also uses the number of clients
    sends_extra_tensors: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Weighting,
        server_optimizer: ServerOptimizer,
    ) -> None:
        require_sgd(info.optimizer, "scaffold")
        super().__init__(info, aggregation, server_optimizer)
        self._weighting: Weighting = weighting
        self._control: Tensors = {}

    @property
    @override
    def item_tables(self) -> frozenset[str]:
        tables = self.info.item_tables
        return tables | {f"{CONTROL_VARIATE_PREFIX}{name}" for name in tables}

    @override
    def client_update(self) -> LocalUpdateRule:
        return ScaffoldUpdate(weighting=self._weighting)

    @override
    def initialize(self, initial: Tensors) -> Tensors:
        """Set all control variates to zero."""
        trained = initial.keys() - self.info.model.frozen
        self._control = {n: np.zeros_like(value) for n, value in initial.items() if n in trained}
        return initial

    @override
    def extra_tensors(self) -> Tensors:
        """The server's control variates."""
        return {f"{CONTROL_VARIATE_PREFIX}{name}": value for name, value in self._control.items()}

    @override
    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        names = self._control.keys()
        updates = {n: total.tensors[n] for n in names}
        changes = {n: total.tensors[f"{CONTROL_VARIATE_PREFIX}{n}"] for n in names}
        mean_change = mean_over_all_clients(replace(total, tensors=changes))
        share = np.float32(round_.num_replied / self.info.num_clients)
        self._control = {n: value + share * mean_change[n] for n, value in self._control.items()}
        return super().apply_sum(parameters, replace(total, tensors=updates), round_)

    @override
    def state(self) -> Tensors:
        """The server optimizer's state and the server's control variates."""
        control = {f"{_STATE_PREFIX}{n}": value for n, value in self._control.items()}
        return super().state() | control

    @override
    def restore(self, state: Tensors) -> None:
        super().restore(state)
        self._control = {
            name.removeprefix(_STATE_PREFIX): value
            for name, value in state.items()
            if name.startswith(_STATE_PREFIX)
        }


@dataclass(frozen=True, slots=True)
class ScaffoldUpdate(LocalUpdateRule):
    """Every local step adds c - c_k to the gradient.

    The client's new control variate is the mean gradient of its steps (option II of the paper):
    the negative update over (learning rate * number of steps).
    """

    state_name: ClassVar[str] = "control"
    uses_control_variates: ClassVar[bool] = True

    @override
    def linear_term(self, layout: Updates, server_control: Tensors, state: ClientState) -> Tensors:
        per_client = copies_per_client(server_control, layout, state.tables)
        return {name: c - state.read(name, layout) for name, c in per_client.items()}

    @override
    def updates_to_send(
        self, trained: Trained, server_control: Tensors, state: ClientState
    ) -> Updates:
        """Add to each update the change c_k_new - c, which is also added to the stored c_k."""
        updates = trained.updates
        per_client = copies_per_client(server_control, updates, state.tables)
        changes: Tensors = {}
        for name, update in updates.tensors.items():
            length = trained.num_steps[name] * trained.rates[name]  # learning rate * steps
            is_table = name in state.tables
            divisor = broadcast_per_client(length, updates, update, is_table=is_table)
            mean_gradient = update / np.where(divisor > 0, -divisor, np.float32(1))
            change = np.where(divisor > 0, mean_gradient - per_client[name], np.float32(0))
            state.write(name, updates, state.read(name, updates) + change)
            changes[f"{CONTROL_VARIATE_PREFIX}{name}"] = change
        return replace(updates, tensors=updates.tensors | changes)

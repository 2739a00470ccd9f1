"""SCAFFOLD: control variates take the drift out of local steps. Source: Karimireddy et al. 2020.

Each local step adds the server's control less the client's own to the gradient; see
`client.methods.Scaffold` for what clients do. Controls travel down and their changes up, as many
bytes as the parameters each way, and every client keeps its own on its node's disk.

The server's control is the mean of all clients' controls, weighted as their updates are: by
`num_examples` by default, uniformly, as in the paper, with `weighting=uniform`. A round adds the
cohort's mean change times its share of all clients. It takes that
mean over all clients whatever `aggregation` says of the step, row by row: who touches no sample of
an item has no gradient there, and so a control of zero. Clients are corrected on the rows they
touch alone. When all have settled, the server's control is zero and the clients' gradients cancel
out, as in the paper; before that, rows that few clients touch move as slowly as under all_clients.
"""

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum, mean_over_all_clients
from fedrec_flower.strategies.base import Aggregation, FederationInfo, RoundInfo
from fedrec_flower.strategies.client_updates import Plain, require_sgd
from fedrec_flower.strategies.client_updates import Scaffold as ControlVariates
from fedrec_flower.strategies.fedopt import ServerOptimizer, SteppingStrategy, chosen
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX

_STATE = "control/"


class Scaffold(SteppingStrategy):
    """Averages updates whose steps were corrected, and the changes of the clients' controls.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        weighting: what each client weighs in the means: "examples", its training interactions;
            "uniform", one, as in the paper.
        server_optimizer: how the server steps, named as the strategy that averages and steps so;
            the paper's is "fedavg".
        server_learning_rate: its learning rate.
        beta1: decay of its first moment, momentum of "fedavgm", in [0, 1).
        beta2: decay of its second moment, in [0, 1).
        tau: floor of its denominator, in units of the parameters.

    Raises:
        ConfigError: if clients do not train by SGD.
    """

    uses_only_the_sum: ClassVar[bool] = False  # also the number of clients behind it
    sends_extra_tensors: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Literal["uniform", "examples"],
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        require_sgd(info.optimizer, "scaffold")
        step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)
        self._weighting = weighting
        self._control: Tensors = {}

    @property
    def item_tables(self) -> frozenset[str]:
        """See `FederatedStrategy.item_tables`; with the tables' controls."""
        tables = self.info.item_tables
        return tables | {f"{CONTROL_VARIATE_PREFIX}{name}" for name in tables}

    def client_update(self) -> Plain:
        """See `FederatedStrategy.client_update`."""
        return ControlVariates(weighting=self._weighting)

    def initialize(self, initial: Tensors) -> Tensors:
        """See `FederatedStrategy.initialize`; all controls are zero."""
        trained = initial.keys() - self.info.model.frozen
        self._control = {n: np.zeros_like(value) for n, value in initial.items() if n in trained}
        return initial

    def extra_tensors(self) -> Tensors:
        """See `FederatedStrategy.extra_tensors`; the server's control."""
        return {f"{CONTROL_VARIATE_PREFIX}{name}": value for name, value in self._control.items()}

    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        """See `FederatedStrategy.apply_sum`."""
        changes = {n: total.tensors[f"{CONTROL_VARIATE_PREFIX}{n}"] for n in self._control}
        updates = {n: total.tensors[n] for n in self._control}
        share = np.float32(round_.num_replied / self.info.num_clients)
        change = mean_over_all_clients(replace(total, tensors=changes))
        self._control = {n: value + share * change[n] for n, value in self._control.items()}
        return super().apply_sum(parameters, replace(total, tensors=updates), round_)

    def state(self) -> Tensors:
        """See `FederatedStrategy.state`; the optimiser's moments and the server's control."""
        return super().state() | {f"{_STATE}{n}": value for n, value in self._control.items()}

    def restore(self, state: Tensors) -> None:
        """See `FederatedStrategy.restore`."""
        super().restore(state)
        kept = {n: value for n, value in state.items() if n.startswith(_STATE)}
        self._control = {n.removeprefix(_STATE): value for n, value in kept.items()}

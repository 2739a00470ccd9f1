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
from typing import Any, Literal

import numpy as np

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum, mean_over_all_clients
from fedrec_flower.federation.server.plan import Observer, Plan
from fedrec_flower.strategies.client_updates import require_sgd
from fedrec_flower.strategies.fedopt import ServerOptimizer, SteppingStrategy, chosen
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX

_STATE = "control/"


class Scaffold(SteppingStrategy):
    """Averages updates whose steps were corrected, and the changes of the clients' controls.

    Args:
        plan: the run.
        observer: hears of every round.
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

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        weighting: Literal["uniform", "examples"],
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        require_sgd(plan, "scaffold")
        step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        controls = {f"{CONTROL_VARIATE_PREFIX}{name}" for name in plan.item_tables}
        with_controls = replace(plan, item_tables=plan.item_tables | controls)
        super().__init__(with_controls, observer, aggregation, step)
        self._weighting = weighting
        self._control: Tensors = {}

    def local(self) -> dict[str, Any]:
        """See `FederatedStrategy.local`."""
        method = "fedrec_flower.strategies.client_updates.Scaffold"
        return {"_target_": method, "weighting": self._weighting}

    def begin(self, initial: Tensors) -> Tensors:
        """See `FederatedStrategy.begin`; all controls are zero."""
        trained = initial.keys() - self.plan.model.frozen
        self._control = {n: np.zeros_like(value) for n, value in initial.items() if n in trained}
        return initial

    def beside(self) -> Tensors:
        """See `FederatedStrategy.beside`; the server's control."""
        return {f"{CONTROL_VARIATE_PREFIX}{name}": value for name, value in self._control.items()}

    def move(self, parameters: Tensors, total: UpdateSum) -> Tensors:
        """See `FederatedStrategy.move`."""
        changes = {n: total.tensors[f"{CONTROL_VARIATE_PREFIX}{n}"] for n in self._control}
        updates = {n: total.tensors[n] for n in self._control}
        share = np.float32(self.replied / self.plan.num_clients)
        change = mean_over_all_clients(replace(total, tensors=changes))
        self._control = {n: value + share * change[n] for n, value in self._control.items()}
        return super().move(parameters, replace(total, tensors=updates))

    def state(self) -> Tensors:
        """See `FederatedStrategy.state`; the optimiser's moments and the server's control."""
        return super().state() | {f"{_STATE}{n}": value for n, value in self._control.items()}

    def restore(self, state: Tensors) -> None:
        """See `FederatedStrategy.restore`."""
        super().restore(state)
        kept = {n: value for n, value in state.items() if n.startswith(_STATE)}
        self._control = {n.removeprefix(_STATE): value for n, value in kept.items()}

"""FedDyn: losses are bent so that clients settle where the server does. Source: Acar et al. 2021.

Algorithm 1. A client adds alpha / learning rate * (value - given) to its gradients and takes off
the gradient of its loss where it last stopped, which it keeps; see `client.methods.Dynamic`. The
paper's alpha is this one over the learning rate, as `fedprox` has it. The server goes to the mean
of the clients' parameters and on by what it has gathered of their updates so far, the paper's
-h / alpha: each round adds the cohort's mean update times its share of all clients. Nothing more
than in plain averaging travels.

What is gathered is a mean over all clients, whatever `aggregation` says of the mean that the server
goes to: who does not touch a row stays where it was given. Both means are weighted by
`num_examples` by default, uniformly, as in the paper, with `weighting=uniform`. A row that nobody
touches in a round stays where it is.
"""

from typing import Literal

import numpy as np

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum, mean_over_all_clients
from fedrec_flower.strategies.base import Aggregation, FederatedStrategy, FederationInfo, RoundInfo
from fedrec_flower.strategies.client_updates import Dynamic, Plain, require_sgd


class FedDyn(FederatedStrategy):
    """Averages what clients made of their bent losses, and goes further.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        weighting: what each client weighs in the means: "examples", its training interactions;
            "uniform", one, as in the paper.
        alpha: share of its way from the given parameters that a client takes back at every step,
            in (0, 1].

    Raises:
        ConfigError: if the share is none, or clients do not train by SGD.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Literal["uniform", "examples"],
        alpha: float,
    ) -> None:
        require(0 < alpha <= 1, f"strategy.alpha must be in (0, 1]: {alpha}")
        require_sgd(info.optimizer, "feddyn")
        super().__init__(info, aggregation)
        self.alpha, self._weighting = alpha, weighting
        self._gathered: Tensors = {}

    @property
    def needs_row_weights(self) -> bool:
        """See `FederatedStrategy.needs_row_weights`; rows that nobody touched stay."""
        return True

    def client_update(self) -> Plain:
        """See `FederatedStrategy.client_update`."""
        return Dynamic(proximal=self.alpha, weighting=self._weighting)

    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        """See `FederatedStrategy.apply_sum`."""
        share = np.float32(round_.num_replied / self.info.num_clients)
        untouched = np.flatnonzero(total.row_weight == 0)
        update, nothing = self.mean(total), np.float32(0)
        for name, mean in mean_over_all_clients(total).items():
            self._gathered[name] = self._gathered.get(name, nothing) + share * mean
            further = self._gathered[name].copy()
            if name in self.info.item_tables:
                further[untouched] = 0
            update[name] = update[name] + further
        return self.apply_update(parameters, update)

    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """See `FederatedStrategy.server_step`; all the way."""
        return {name: value + update[name] for name, value in parameters.items()}

    def state(self) -> Tensors:
        """See `FederatedStrategy.state`; what is gathered."""
        return dict(self._gathered)

    def restore(self, state: Tensors) -> None:
        """See `FederatedStrategy.restore`."""
        self._gathered = dict(state)

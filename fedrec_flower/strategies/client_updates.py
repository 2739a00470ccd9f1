"""The client half of an algorithm: the gradient terms of local training and the sent updates.

The rule of an algorithm stands in the algorithm's file; this file has the interface and the plain
rule. A client does not know whether its reply was lost or left out, so it keeps the state of a
round that the server then repeats.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.training.gradient_correction import GradientCorrection
from fedrec_flower.training.trainer import Trained

Weighting = Literal["uniform", "examples"]


@dataclass(frozen=True, slots=True)
class LocalUpdateRule(ABC):
    """The gradient terms of local training and the sent updates; the base of all client halves.

    A rule is sent to the nodes as its class and its fields. Nodes accept only classes of this
    package and of trusted plug-ins.

    Attributes:
        proximal: the proximal factor; see `GradientCorrection`.
        maml_step: length of the inner step; see `LocalTrainer`.
        weighting: "examples" weights a client's update and loss by its `num_examples`; "uniform"
            weights every client with training data by 1.
    """

    state_name: ClassVar[str] = ""
    """Name of the per-client state on the nodes; empty if the rule has none."""
    uses_control_variates: ClassVar[bool] = False
    """Whether the server sends a control variate per parameter and clients send its change."""

    proximal: float = 0.0
    maml_step: float | None = None
    weighting: Weighting = "examples"

    @property
    def needs_single_updates(self) -> bool:
        """Whether the rule has a linear term or reads the updates of single clients."""
        return True

    def weigh(self, num_examples: Float64Array) -> Float64Array:
        """The weights of clients' updates, float64 (num_clients,)."""
        if self.weighting == "uniform":
            return (num_examples > 0).astype(np.float64)
        return num_examples

    @abstractmethod
    def linear_term(self, layout: Updates, server_control: Tensors, state: ClientState) -> Tensors:
        """The constant terms that are added to the gradients; see `GradientCorrection`.

        Args:
            layout: the clients and the rows they touch, without tensors.
            server_control: the server's control variates, whole, by parameter.
            state: the clients' state.

        Returns:
            float32 by parameter, laid out as `Updates.tensors`.
        """

    @abstractmethod
    def updates_to_send(
        self, trained: Trained, server_control: Tensors, state: ClientState
    ) -> Updates:
        """The updates that the clients send; their state is changed for the next round.

        Args:
            trained: the result of local training.
            server_control: the server's control variates, whole, by parameter.
            state: the clients' state.
        """


@dataclass(frozen=True, slots=True)
class PlainUpdate(LocalUpdateRule):
    """Clients train without a linear term, keep no state and send their updates unchanged."""

    @property
    @override
    def needs_single_updates(self) -> bool:
        return False

    @override
    def linear_term(self, layout: Updates, server_control: Tensors, state: ClientState) -> Tensors:
        return {}

    @override
    def updates_to_send(
        self, trained: Trained, server_control: Tensors, state: ClientState
    ) -> Updates:
        return trained.updates


@dataclass(frozen=True, slots=True)
class BoundUpdateRule(GradientCorrection):
    """A rule bound to the control variates of one message and to the clients' state.

    Attributes:
        rule: the client half of the algorithm.
        server_control: the server's control variates, whole, by parameter.
        state: the clients' state.
    """

    rule: LocalUpdateRule
    server_control: Tensors
    state: ClientState

    @property
    @override
    def proximal(self) -> float:
        return self.rule.proximal

    @override
    def linear_term(self, layout: Updates) -> Tensors:
        return self.rule.linear_term(layout, self.server_control, self.state)

    def result_to_send(self, trained: Trained) -> Trained:
        """The result of training with the updates and weights that the clients send."""
        updates = self.rule.updates_to_send(trained, self.server_control, self.state)
        updates = replace(updates, weights=self.rule.weigh(updates.weights))
        return replace(trained, updates=updates)


def copies_per_client(tensors: Tensors, layout: Updates, tables: frozenset[str]) -> Tensors:
    """The rows of tables that the clients touch, and one copy per client of other tensors.

    Args:
        tensors: whole, by parameter.
        layout: the clients and the rows they touch.
        tables: names of the parameters with a row per item.

    Returns:
        float32 by parameter, laid out as `Updates.tensors`.
    """
    count = len(layout.clients)
    return {
        name: whole[layout.rows] if name in tables else np.repeat(whole[None], count, axis=0)
        for name, whole in tensors.items()
    }


def broadcast_per_client(
    per_client: NDArray[np.floating[Any]],
    updates: Updates,
    like: Float32Array,
    *,
    is_table: bool,
) -> Float32Array:
    """One number per client, shaped to broadcast against an array of `Updates.tensors`.

    Args:
        per_client: (num_clients,).
        updates: the clients and the rows they touch.
        like: the array, (num_rows, ...) for a table, else (num_clients, ...).
        is_table: whether the array belongs to a parameter with a row per item.
    """
    values = per_client[updates.owners] if is_table else per_client
    return values.astype(np.float32).reshape(-1, *[1] * (like.ndim - 1))


def require_sgd(optimizer: str, strategy: str) -> None:
    """Check that clients train by SGD, because the algorithm computes gradients from their steps.

    Args:
        optimizer: the optimiser of local training.
        strategy: the strategy's name, for the message.

    Raises:
        ConfigError: if clients use another optimiser.
    """
    require(
        optimizer == "sgd",
        f"strategy={strategy} computes gradients from the clients' steps, which "
        f"training.optimizer={optimizer} rescales: choose sgd",
    )

"""What a strategy changes in the way clients train; see its own file for the server's part.

A client's state and the server's must change together. A client cannot know that its reply was
lost or left out, so it keeps what it learnt from a round that the server then tried again.

What local training must be like for its steps to tell of gradients.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX
from fedrec_flower.training.trainer import Trained

Weighting = Literal["uniform", "examples"]


@dataclass(frozen=True, slots=True)
class Plain:
    """Clients train as ever, and send what training changed.

    Attributes:
        proximal: see `training.GradientCorrection`.
        maml_step: see `LocalTrainer`.
        weighting: "examples": a client's update, and its loss, weigh its `num_examples`;
            "uniform": those of every client with training data weigh 1.
    """

    keeps: ClassVar[str] = ""  # what clients keep from round to round goes by this name
    controls: ClassVar[bool] = False  # whether a control goes with each parameter, down and up

    proximal: float = 0.0
    maml_step: float | None = None
    weighting: Weighting = "examples"

    def linear_term(self, layout: Updates, controls: Tensors, kept: ClientState) -> Tensors:
        """What is added to the gradients beside the proximal; see `training.GradientCorrection`.

        Args:
            layout: the clients and the rows they touch.
            controls: the server's, whole, by name of the parameter.
            kept: what the clients keep.
        """
        del layout, controls, kept
        return {}

    def sent(self, trained: Trained, controls: Tensors, kept: ClientState) -> Updates:
        """What the clients send; they keep what they need for the next time."""
        del controls, kept
        return trained.updates


@dataclass(frozen=True, slots=True)
class Scaffold(Plain):
    """Each step is corrected by the server's control less the client's own.

    The client's new control is the mean gradient of its steps, option II of the paper: what it
    moved over the learning rate times the number of steps.

    Source: Karimireddy et al. 2020, Algorithm 1.
    """

    keeps: ClassVar[str] = "control"
    controls: ClassVar[bool] = True

    def linear_term(self, layout: Updates, controls: Tensors, kept: ClientState) -> Tensors:
        """See `Plain.linear_term`."""
        whole = _laid_out(controls, layout, kept.tables)
        return {name: control - kept.read(name, layout) for name, control in whole.items()}

    def sent(self, trained: Trained, controls: Tensors, kept: ClientState) -> Updates:
        """See `Plain.sent`; beside each update how the client's control changes."""
        updates, changes = trained.updates, dict[str, NDArray[np.float32]]()
        whole = _laid_out(controls, updates, kept.tables)
        for name, moved in updates.tensors.items():
            steps = trained.num_steps[name] * trained.rates[name]
            reach = _of_each_row(steps, updates, moved, table=name in kept.tables)
            mean = moved / np.where(reach > 0, -reach, np.float32(1))
            change = np.where(reach > 0, mean - whole[name], np.float32(0))
            kept.write(name, updates, kept.read(name, updates) + change)
            changes[f"{CONTROL_VARIATE_PREFIX}{name}"] = change
        return replace(updates, tensors=updates.tensors | changes)


@dataclass(frozen=True, slots=True)
class Dynamic(Plain):
    """Each client's loss is bent so that its minimum is the server's where all have settled.

    What a client keeps is the gradient of its loss where it last stopped.

    Source: Acar et al. 2021, Algorithm 1; `proximal` over the learning rate is its alpha.
    """

    keeps: ClassVar[str] = "gradient"

    def linear_term(self, layout: Updates, controls: Tensors, kept: ClientState) -> Tensors:
        """See `Plain.linear_term`."""
        del controls
        return {name: -kept.read(name, layout) for name in kept.shapes}

    def sent(self, trained: Trained, controls: Tensors, kept: ClientState) -> Updates:
        """See `Plain.sent`."""
        del controls
        updates = trained.updates
        for name, moved in updates.tensors.items():
            if rate := trained.rates[name]:
                gradient = kept.read(name, updates) - np.float32(self.proximal / rate) * moved
                kept.write(name, updates, gradient)
        return updates


@dataclass(frozen=True, slots=True)
class Guided:
    """A method at work on one message: `training.GradientCorrection`.

    Attributes:
        method: what the strategy changes.
        controls: the server's, whole, by name of the parameter.
        kept: what the clients keep.
    """

    method: Plain
    controls: Tensors
    kept: ClientState

    @property
    def proximal(self) -> float:
        """See `training.GradientCorrection.proximal`."""
        return self.method.proximal

    def linear_term(self, layout: Updates) -> Tensors:
        """See `training.GradientCorrection.linear_term`."""
        return self.method.linear_term(layout, self.controls, self.kept)

    def sent(self, trained: Trained) -> Trained:
        """What was trained, with what the clients send of it and what it weighs."""
        updates = self.method.sent(trained, self.controls, self.kept)
        if self.method.weighting == "uniform":
            weights = (updates.weights > 0).astype(updates.weights.dtype)
            updates = replace(updates, weights=weights)
        return replace(trained, updates=updates)


def _laid_out(controls: Tensors, layout: Updates, tables: frozenset[str]) -> Tensors:
    """The server's controls for each of the clients, laid out like their updates."""
    count = len(layout.clients)
    return {
        name: whole[layout.rows] if name in tables else np.repeat(whole[None], count, axis=0)
        for name, whole in controls.items()
    }


def _of_each_row(
    of_client: NDArray[np.floating[Any]],
    updates: Updates,
    like: NDArray[np.float32],
    *,
    table: bool,
) -> NDArray[np.float32]:
    """A number per client, as it divides an array laid out like the updates."""
    each = of_client[updates.owners] if table else of_client
    return each.astype(np.float32).reshape(-1, *[1] * (like.ndim - 1))


def require_sgd(optimizer: str, strategy: str) -> None:
    """Refuse an optimiser whose steps tell nothing of the gradients that clients saw.

    Args:
        optimizer: the optimiser of local training.
        strategy: its name, for the message.

    Raises:
        ConfigError: if clients do not train by SGD.
    """
    require(
        optimizer == "sgd",
        f"strategy={strategy} reads gradients off the clients' steps, which "
        f"training.optimizer={optimizer} rescales: choose sgd",
    )

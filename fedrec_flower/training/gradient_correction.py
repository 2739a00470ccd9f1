"""Terms that a strategy adds to the gradients of local training to reduce client drift.

A step on a shared parameter w follows, instead of its gradient g,

    g + proximal / rate * (w - w_global) + linear_term

`proximal` is the share of its distance from the global value that a client's SGD step takes back;
it does not depend on the learning rate `rate`. `linear_term` is the gradient of a linear term of
the client's loss: a constant of the client, the same in every step of the round.

Personal parameters get no such terms, nor do table rows that the client's samples and histories
do not touch, because a client does not move those rows.

Source: Li et al. 2020, Algorithm 2 (`proximal`); Karimireddy et al. 2020, eq. 3 (`linear_term`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.training.negative_sampling import Samples

# A control variate has the name of its parameter with this prefix.
CONTROL_VARIATE_PREFIX = "control."


class GradientCorrection(Protocol):
    """Computes the terms that are added to the clients' gradients."""

    @property
    def proximal(self) -> float:
        """The proximal factor, in [0, 1]; 0 for no proximal term."""
        ...

    def linear_term(self, layout: Updates) -> Tensors:
        """The constant terms by name; parameters without an entry have no such term.

        Args:
            layout: the clients and the rows they touch, without tensors.

        Returns:
            float32, laid out as `Updates.tensors`.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoCorrection(GradientCorrection):
    """Adds nothing: plain local training."""

    proximal: float = 0.0

    @override
    def linear_term(self, layout: Updates) -> Tensors:
        return {}


@dataclass(frozen=True, slots=True)
class CorrectionTerms:
    """The terms for a chunk of clients in the form gradient + factor * value + offset.

    Attributes:
        factor: proximal / learning rate, by name of the corrected parameters.
        offset: linear_term - factor * global value, by the same names, laid out as
            `CohortBatch.values`; empty for plain training.
    """

    factor: Mapping[str, float]
    offset: Tensors

    @classmethod
    def of(
        cls,
        correction: GradientCorrection,
        layout: Updates,
        global_params: Tensors,
        rates: Mapping[str, float],
    ) -> Self:
        """Compute factor and offset of a chunk.

        Args:
            correction: computes the terms.
            layout: the clients and the rows they touch.
            global_params: the values that the trained shared parameters start from, laid out as
                `CohortBatch.values`; not changed.
            rates: the parameters' learning rates.
        """
        linear_term = correction.linear_term(layout)
        if not correction.proximal:
            return cls(dict.fromkeys(linear_term, 0.0), linear_term)
        factor = proximal_factors(correction.proximal, {n: rates[n] for n in global_params})
        zero = np.float32(0)
        offset = {
            n: linear_term.get(n, zero) - np.float32(factor[n]) * value
            for n, value in global_params.items()
        }
        return cls(factor, offset)


def proximal_factors(proximal: float, rates: Mapping[str, float]) -> dict[str, float]:
    """`CorrectionTerms.factor` of parameters with these learning rates."""
    return {name: proximal / rate if rate else 0.0 for name, rate in rates.items()}


def num_steps(
    batch_size: int | None,
    epochs: Sequence[Samples],
    phases: Sequence[Collection[frozenset[str]]],
    names: Collection[str],
) -> dict[str, NDArray[np.int64]]:
    """Count the steps that each client takes.

    Args:
        batch_size: samples per step; None: all of an epoch.
        epochs: the clients' samples, by local epoch.
        phases: the parameters that each step on a batch updates, by local epoch.
        names: the parameters to count for.

    Returns:
        By name int64 (num_clients,): the number of steps that update the parameter.
    """
    counts = {name: np.zeros(len(epochs[0].offsets) - 1, np.int64) for name in names}
    for samples, updated in zip(epochs, phases, strict=True):
        sizes = np.diff(samples.offsets)
        largest = max(1, int(sizes.max(initial=0)))
        num_batches = -(-sizes // (largest if batch_size is None else batch_size))
        for name in names:
            counts[name] += num_batches * sum(name in phase for phase in updated)
    return counts

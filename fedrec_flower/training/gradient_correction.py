"""What a strategy adds to the gradients of local training, so that clients drift apart less.

A step on a shared parameter then follows gradient + pull / rate * (value - given) + shift: `pull`
is the share of its way from where it began that a step of SGD takes back, at whatever learning
rate; `shift` is the client's own and stays the same all round.
Personal parameters are left alone. A client moves no row that its samples and histories do not
touch, so nothing is added there either.

Source: Li et al. 2020, Algorithm 2 (`pull`); Karimireddy et al. 2020, eq. 3 (`shift`).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.training.negative_sampling import Samples

# Where a control goes with a parameter, it goes by the parameter's name with this before it.
CONTROL = "control."


class Guide(Protocol):
    """Says what is added to the gradients of each client."""

    @property
    def pull(self) -> float:
        """The share of its way that each step takes back, in [0, 1]; 0: none."""
        ...

    def shift(self, layout: Updates) -> Tensors:
        """What else is added, by name; a parameter that is not there has nothing added.

        Args:
            layout: the clients and the rows they touch; it holds no tensors.

        Returns:
            float32, laid out as `Updates.tensors`.
        """
        ...


@dataclass(frozen=True, slots=True)
class Unguided:
    """Nothing is added: plain local training."""

    pull: float = 0.0

    def shift(self, layout: Updates) -> Tensors:
        """See `Guide.shift`; nothing."""
        del layout
        return {}


@dataclass(frozen=True, slots=True)
class Correction:
    """What is added to the gradients of a chunk of clients: factor * value + rest.

    Attributes:
        factor: the pull over the learning rate, by name of the parameters that are corrected.
        rest: shift - factor * given, by name too, laid out as `Work.values`; empty where nothing
            is added.
    """

    factor: Mapping[str, float]
    rest: Tensors

    @classmethod
    def of(cls, guide: Guide, layout: Updates, given: Tensors, rates: Mapping[str, float]) -> Self:
        """Lay out a guide's words.

        Args:
            guide: says what is added.
            layout: the clients and the rows they touch.
            given: by name of the shared parameters that are trained, what they begin with, laid
                out as `Work.values`; left unchanged.
            rates: their learning rates.
        """
        rest = guide.shift(layout)
        if not guide.pull:
            return cls(dict.fromkeys(rest, 0.0), rest)
        factor = {n: guide.pull / rates[n] if rates[n] else 0.0 for n in given}
        nothing = np.float32(0)
        return cls(
            factor,
            {n: rest.get(n, nothing) - np.float32(factor[n]) * given[n] for n in given},
        )


def num_steps(
    batch_size: int | None,
    epochs: Sequence[Samples],
    phases: Sequence[Collection[frozenset[str]]],
    names: Collection[str],
) -> dict[str, NDArray[np.int64]]:
    """How many steps each client takes.

    Args:
        batch_size: samples a step; None: all of an epoch.
        epochs: the clients' samples, by local epoch.
        phases: which parameters learn from a batch, by local epoch.
        names: the parameters asked for.

    Returns:
        By name int64 (num_clients,): those in which the parameter learns.
    """
    found = {name: np.zeros(len(epochs[0].offsets) - 1, np.int64) for name in names}
    for samples, learning in zip(epochs, phases, strict=True):
        sizes = np.diff(samples.offsets)
        num_batches = -(-sizes // (batch_size or max(1, int(sizes.max(initial=0)))))
        for name in names:
            found[name] += num_batches * sum(name in phase for phase in learning)
    return found

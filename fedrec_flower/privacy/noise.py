"""Where the randomness of privacy comes from: the operating system, or a seed if one must repeat.

Floating-point noise has gaps through which a value can be guessed (Mironov 2012, "On significance
of the least significant bits for differential privacy"). Gaussian noise from the operating system
is therefore half the sum of four draws, which blurs them (Holohan and Braghin 2021, "Secure random
sampling in differential privacy", as Opacus does in its secure mode). Laplace noise is one
inversion of a uniform draw of 53 bits, and keeps its gaps.

Draws that a client repeats come from its node's secret, through AES (see `seeding.streams`): what
is published of some of them tells nothing of the others.
"""

import os
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import Seed, Streams, draw, generator, streams

Floats = NDArray[np.float64]
Shape = tuple[int, ...]

_BITS = 53  # of a float64's fraction


class Source(Protocol):
    """Draws of one purpose."""

    def uniform(self, shape: Shape) -> Floats:
        """Uniform in (0, 1)."""
        ...

    def normal(self, shape: Shape) -> Floats:
        """Standard normal."""
        ...


@dataclass(frozen=True, slots=True)
class Chance:
    """Gives each purpose its draws.

    Attributes:
        seed: the experiment's seed, whose noise anyone who knows it can take off again. With a
            node's secret, or None on the server, noise comes from the operating system.
    """

    seed: Seed | None

    def source(self, role: str, round_: int = 0, client: int = 0) -> Source:
        """The draws of one purpose; the same every time with the experiment's seed alone."""
        if isinstance(self.seed, int):
            return _Seeded(generator(self.seed, role, round_, client))
        return _System()

    def lasting(self, role: str, client: int) -> Source:
        """Draws that a client must repeat in every round, by the node's secret or the seed.

        Raises:
            ValueError: on a server without a seed, which has nothing to repeat them by.
        """
        if self.seed is None:
            raise ValueError("lasting draws need a node's secret or a seed")
        if isinstance(self.seed, int):
            return _Seeded(generator(self.seed, role, 0, client))
        return _Keyed(streams(self.seed, role, 0, np.array([client])))


@dataclass(frozen=True, slots=True)
class _Seeded:
    rng: np.random.Generator

    def uniform(self, shape: Shape) -> Floats:
        return (self.rng.integers(0, 1 << _BITS, shape) + 0.5) / (1 << _BITS)

    def normal(self, shape: Shape) -> Floats:
        return self.rng.standard_normal(shape)


@dataclass(slots=True)
class _Keyed:
    """The blocks of one stream, each drawn once, in their order."""

    stream: Streams
    drawn: int = field(default=0, init=False)

    def uniform(self, shape: Shape) -> Floats:
        first, self.drawn = self.drawn, self.drawn + prod(shape)
        return _uniform(draw(self.stream, np.arange(first, self.drawn))).reshape(shape)

    def normal(self, shape: Shape) -> Floats:
        return _normal(self.uniform(shape))


class _System:
    def uniform(self, shape: Shape) -> Floats:
        return _uniform(np.frombuffer(os.urandom(8 * prod(shape)), np.uint64).reshape(shape))

    def normal(self, shape: Shape) -> Floats:
        total = np.zeros(shape)
        for _ in range(4):
            total += _normal(self.uniform(shape))
        return total / 2


def _uniform(words: NDArray[np.uint64]) -> Floats:
    """Uniform in (0, 1), of 64 random bits each."""
    whole: Floats = ((words >> np.uint64(64 - _BITS)) + 0.5) / (1 << _BITS)
    return whole


def _normal(uniform: Floats) -> Floats:
    from scipy.special import ndtri

    drawn: Floats = ndtri(uniform)
    return drawn


def laplace(source: Source, shape: Shape) -> Floats:
    """Laplace noise of scale 1, by inversion."""
    centred = source.uniform(shape) - 0.5
    drawn: Floats = -np.sign(centred) * np.log1p(-2 * np.abs(centred))
    return drawn

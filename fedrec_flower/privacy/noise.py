"""Randomness of the privacy mechanisms: from the operating system, or from a seed.

Floating-point noise has gaps through which a value can be guessed (Mironov 2012, "On significance
of the least significant bits for differential privacy"). Gaussian noise from the operating system
is therefore half the sum of four draws, which blurs the gaps (Holohan and Braghin 2021, "Secure
random sampling in differential privacy"; the secure mode of Opacus does the same). Laplace noise
is one inversion of a uniform draw of 53 bits, and keeps its gaps.

Draws that a client repeats come from the secret of its node, through AES (see `seeding.streams`):
publishing some of them reveals nothing about the others.
"""

import os
from dataclasses import dataclass, field
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import Seed, Streams, draw, generator, streams
from fedrec_flower.core.types import Float64Array

Shape = tuple[int, ...]

_BITS = 53  # of a float64's fraction


class NoiseStream(Protocol):
    """A stream of random draws for one purpose."""

    def uniform(self, shape: Shape) -> Float64Array:
        """Uniform in (0, 1)."""
        ...

    def normal(self, shape: Shape) -> Float64Array:
        """Standard normal."""
        ...


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """Creates one random stream for each purpose.

    Attributes:
        seed: the experiment's seed; noise drawn from it can be subtracted again by anyone who
            knows the seed. With a node's secret, or None on the server, noise comes from the
            operating system.
    """

    seed: Seed | None

    def stream(self, role: str, round_: int = 0, client: int = 0) -> NoiseStream:
        """The stream of one purpose; it repeats only if `seed` is the experiment's seed."""
        if isinstance(self.seed, int):
            return _Seeded(generator(self.seed, role, round_, client))
        return _System()

    def persistent_stream(self, role: str, client: int) -> NoiseStream:
        """The stream that a client repeats in every round, from the node's secret or the seed.

        Raises:
            ValueError: on a server without a seed, where draws cannot repeat.
        """
        if self.seed is None:
            raise ValueError("lasting draws need a node's secret or a seed")
        if isinstance(self.seed, int):
            return _Seeded(generator(self.seed, role, 0, client))
        return _Keyed(streams(self.seed, role, 0, np.array([client])))


@dataclass(frozen=True, slots=True)
class _Seeded:
    rng: np.random.Generator

    def uniform(self, shape: Shape) -> Float64Array:
        return (self.rng.integers(0, 1 << _BITS, shape) + 0.5) / (1 << _BITS)

    def normal(self, shape: Shape) -> Float64Array:
        return self.rng.standard_normal(shape)


@dataclass(slots=True)
class _Keyed:
    """The blocks of one keyed stream, each used once, in order."""

    stream: Streams
    num_drawn: int = field(default=0, init=False)

    def uniform(self, shape: Shape) -> Float64Array:
        counters = np.arange(self.num_drawn, self.num_drawn + prod(shape))
        self.num_drawn += len(counters)
        return _uniform(draw(self.stream, counters)).reshape(shape)

    def normal(self, shape: Shape) -> Float64Array:
        return _normal(self.uniform(shape))


class _System:
    def uniform(self, shape: Shape) -> Float64Array:
        return _uniform(np.frombuffer(os.urandom(8 * prod(shape)), np.uint64).reshape(shape))

    def normal(self, shape: Shape) -> Float64Array:
        total = np.zeros(shape)
        for _ in range(4):
            total += _normal(self.uniform(shape))
        return total / 2


def _uniform(words: NDArray[np.uint64]) -> Float64Array:
    """Uniform in (0, 1), one number from each word of 64 random bits."""
    numbers: Float64Array = ((words >> np.uint64(64 - _BITS)) + 0.5) / (1 << _BITS)
    return numbers


def _normal(uniform: Float64Array) -> Float64Array:
    from scipy.special import ndtri

    numbers: Float64Array = ndtri(uniform)
    return numbers


def laplace(source: NoiseStream, shape: Shape) -> Float64Array:
    """Laplace noise of scale 1, by inversion."""
    centred = source.uniform(shape) - 0.5
    numbers: Float64Array = -np.sign(centred) * np.log1p(-2 * np.abs(centred))
    return numbers

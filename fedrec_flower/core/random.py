"""Random streams that depend only on their address: seed, role, round and client.

Draws therefore do not depend on order, engine, hosting or worker. The first part of the address
decides who can repeat a draw: the experiment's seed is known to every reader of the configuration,
including the server; a node's secret never leaves the node.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any
from zlib import crc32

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from numpy.typing import NDArray

SECRET_BYTES = 32

_BLOCKS_PER_CALL = 1 << 14  # blocks of 16 bytes encrypted at a time: they fit into the CPU cache


class Secret:
    """A node's secret key of 256 bits; it cannot be written to a message or a log line.

    Keyed BLAKE2b derives 256 bits for every address. The bits of one address reveal neither the
    secret nor the bits of another address.

    Args:
        key: 32 bytes.

    Raises:
        ValueError: if the key has another length.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(key)}")
        self._key = key

    def __repr__(self) -> str:
        return "Secret(...)"

    def at(self, purpose: str, role: str, round_: int, client: int = 0) -> bytes:
        """Derive the 32 bytes of an address.

        Args:
            purpose: use of the bytes, at most 16 ASCII characters; different purposes give
                independent bytes.
            role: purpose of the draw, such as "cohort".
            round_: the round; non-negative, below 2**64.
            client: the client or user; non-negative, below 2**64.
        """
        address = b"".join(n.to_bytes(8, "little") for n in (round_, client)) + role.encode()
        return blake2b(address, key=self._key, person=purpose.encode()).digest()[:SECRET_BYTES]


Seed = int | Secret
"""Root of all draws: the experiment's seed, non-negative, or a node's secret."""


def generator(seed: Seed, role: str, round_: int = 0, client: int = 0) -> np.random.Generator:
    """Make the generator of one address.

    PCG64 is not a cipher: the further outputs of one generator can be computed from many of its
    outputs. Under a secret, this does not reveal the generators of other addresses.

    Args:
        seed: the experiment's seed, or a node's secret.
        role: purpose of the draw, such as "cohort", "negatives" or "shuffle".
        round_: the round of the draw; 0 if it has none.
        client: the client or user of the draw; 0 if it has none.

    Returns:
        A fresh generator; the same address always gives the same stream.
    """
    if isinstance(seed, Secret):
        entropy = int.from_bytes(seed.at("generator", role, round_, client), "little")
        # The default pool of 4 words would keep only 128 of the 256 bits.
        sequence = np.random.SeedSequence(entropy, pool_size=8)
        return np.random.Generator(np.random.PCG64(sequence))
    # crc32 instead of hash(): Python salts hash() differently in every process.
    return np.random.default_rng((seed, crc32(role.encode()), round_, client))


GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio, the increment of SplitMix64


@dataclass(frozen=True, slots=True, repr=False)
class Streams:
    """The counter-based streams of many clients, for `draw`.

    Attributes:
        start: uint64, initial state of each stream; under a secret, the client code.
        key: 32 bytes, common to all streams of the role and round; None under a seed.
    """

    start: NDArray[np.uint64]
    key: bytes | None = None

    def __len__(self) -> int:
        """Number of streams."""
        return len(self.start)

    def __getitem__(self, place: NDArray[Any] | slice | tuple[slice | None, ...]) -> "Streams":
        """Select or reshape streams by numpy indexing."""
        return Streams(self.start[place], self.key)

    def repeat(self, times: NDArray[np.int64]) -> "Streams":
        """Repeat each stream the given number of times."""
        return Streams(np.repeat(self.start, times), self.key)


def streams(seed: Seed, role: str, round_: int, clients: NDArray[np.int64]) -> Streams:
    """Make counter-based random streams for many clients at once.

    A generator per client would cost more than the training of a small client. A stream has no
    state, and its draws can be taken in any order and number. Under a secret, each draw is a block
    of AES-256 under a key of the role and round, so no draw reveals another one.

    Args:
        seed: the experiment's seed, or a node's secret.
        role: purpose of the draws.
        round_: the round of the draws.
        clients: int64 (n,), client codes.

    Returns:
        The streams, (n,).
    """
    codes = clients.astype(np.uint64)
    if isinstance(seed, Secret):
        return Streams(codes, seed.at("streams", role, round_))
    base = np.random.SeedSequence((seed, crc32(role.encode()), round_)).generate_state(1, np.uint64)
    return Streams(splitmix64_finalize(base + splitmix64_finalize(codes * GOLDEN + GOLDEN)))


def draw(stream: Streams, counter: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Draw 64 random bits for each (stream, counter).

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators":
    SplitMix64, evaluated directly at the counter. Under a secret: FIPS 197, AES of
    (client, counter), as in counter mode.

    Args:
        stream: (n,), from `streams`; or any shape that broadcasts with `counter`.
        counter: int64 (n,), non-negative; position of each draw in its stream.

    Returns:
        uint64, in the broadcast shape.
    """
    if stream.key is not None:
        return _encrypted(stream.key, stream.start, counter.astype(np.uint64))
    return splitmix64_finalize(stream.start + counter.astype(np.uint64) * GOLDEN)


def _encrypted(
    key: bytes, start: NDArray[np.uint64], counter: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """Encrypt each (start, counter) as one block; returns the first 64 bits of each block."""
    shape = np.broadcast_shapes(start.shape, counter.shape)
    pairs = [np.broadcast_to(part, shape).ravel() for part in (start, counter)]
    drawn = np.empty(len(pairs[0]), np.uint64)
    # ECB reveals equal blocks; here all blocks are different.
    aes = Cipher(AES(key), ECB()).encryptor()  # noqa: S305
    for first in range(0, len(drawn), _BLOCKS_PER_CALL):
        part = slice(first, first + _BLOCKS_PER_CALL)
        blocks = np.stack([pair[part] for pair in pairs], axis=1).astype("<u8")
        drawn[part] = np.frombuffer(aes.update(blocks.tobytes()), "<u8")[::2]
    return drawn.reshape(shape)


def below(bits: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """Map random bits to integers in [0, bound); bound below 2**31, bias below bound / 2**32."""
    return ((bits >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def unit_uniform(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Map random bits to uniform numbers in (0, 1), in steps of 2**-53."""
    numbers: NDArray[np.float64] = ((bits >> np.uint64(11)) + 0.5) / (1 << 53)
    return numbers


def standard_normal(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Map random bits to standard normal numbers, each from 64 bits; magnitudes are below 6.8.

    This is no noise for privacy: see `privacy.noise`.

    Source: Box and Muller 1958, "A note on the generation of random normal deviates".
    """
    low = bits & np.uint64(0xFFFFFFFF)
    radius = np.sqrt(-2 * np.log(((bits >> np.uint64(32)) + 0.5) / (1 << 32)))
    numbers: NDArray[np.float64] = radius * np.cos(2 * np.pi / (1 << 32) * low)
    return numbers


def splitmix64_finalize(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Output function of SplitMix64: each input bit changes half of the output bits on average."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))

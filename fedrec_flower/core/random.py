"""One generator per role: draws depend on no order, engine, hosting or worker.

A draw is named by its address: role, round and client. What the address is combined with decides
who can repeat the draw. The experiment's seed is known to everyone who reads the configuration,
the server included. A node's secret never leaves the node.
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

_AT_ONCE = 1 << 14  # blocks of 16 bytes that are encrypted at a time: a cache holds them


class Secret:
    """256 bits that a node keeps to itself; no message and no log line can hold them.

    Keyed BLAKE2b gives every address 256 bits of its own. Who learns those of one address learns
    nothing of the secret, and so nothing of any other address.

    Args:
        key: 32 bytes.

    Raises:
        ValueError: if there are more or fewer.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != SECRET_BYTES:
            raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(key)}")
        self._key = key

    def __repr__(self) -> str:
        return "Secret(...)"

    def at(self, purpose: str, role: str, round_: int, client: int = 0) -> bytes:
        """The 32 bytes of an address.

        Args:
            purpose: what the bytes are used for, at most 16 ASCII characters; uses share nothing.
            role: what is drawn.
            round_: the round; non-negative, below 2**64.
            client: the client or user; non-negative, below 2**64.
        """
        address = b"".join(n.to_bytes(8, "little") for n in (round_, client)) + role.encode()
        return blake2b(address, key=self._key, person=purpose.encode()).digest()[:SECRET_BYTES]


Seed = int | Secret
"""What draws follow from: the experiment's seed, non-negative, or a node's secret."""


def generator(seed: Seed, role: str, round_: int = 0, client: int = 0) -> np.random.Generator:
    """The generator of one draw, derived from its address and nothing else.

    PCG64 is no cipher: who sees many whole outputs of one generator can continue that one. Under a
    secret this says nothing of other addresses.

    Args:
        seed: the experiment's seed, or a node's secret.
        role: what is drawn, such as "cohort", "negatives" or "shuffle".
        round_: the round the draw belongs to; 0 when it belongs to none.
        client: the client or user the draw belongs to; 0 when it belongs to none.

    Returns:
        A fresh generator; the same address always gives the same stream.
    """
    if isinstance(seed, Secret):
        own = int.from_bytes(seed.at("generator", role, round_, client), "little")
        # A pool of 4 words, the default, would keep 128 of the 256 bits.
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(own, pool_size=8)))
    # crc32, not hash(): Python salts hash() anew in every process.
    return np.random.default_rng((seed, crc32(role.encode()), round_, client))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, repr=False)
class Streams:
    """The counter-based streams of many clients, for `draw`.

    Attributes:
        start: uint64, where each stream begins; under a secret, whose it is.
        key: 32 bytes, of all streams of the role and round; None where a seed decides.
    """

    start: NDArray[np.uint64]
    key: bytes | None = None

    def __len__(self) -> int:
        """Number of streams."""
        return len(self.start)

    def __getitem__(self, place: NDArray[Any] | slice | tuple[slice | None, ...]) -> "Streams":
        """Some of the streams, or the same ones in another shape, as numpy indexes arrays."""
        return Streams(self.start[place], self.key)

    def repeat(self, times: NDArray[np.int64]) -> "Streams":
        """Each stream so many times."""
        return Streams(np.repeat(self.start, times), self.key)


def streams(seed: Seed, role: str, round_: int, clients: NDArray[np.int64]) -> Streams:
    """The counter-based streams of many clients at once, each known by its address alone.

    A generator per client costs more than training a small client does; a stream costs nothing
    and its draws can be taken in any order, one or a million at a time. Under a secret every draw
    is a block of AES-256 under a key of the role and round: no draw tells of another.

    Args:
        seed: the experiment's seed, or a node's secret.
        role: what is drawn.
        round_: the round the draws belong to.
        clients: int64 (n,), client codes.

    Returns:
        The streams, (n,).
    """
    codes = clients.astype(np.uint64)
    if isinstance(seed, Secret):
        return Streams(codes, seed.at("streams", role, round_))
    base = np.random.SeedSequence((seed, crc32(role.encode()), round_)).generate_state(1, np.uint64)
    return Streams(scatter(base + scatter(codes * _GOLDEN + _GOLDEN)))


def draw(stream: Streams, counter: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each (stream, counter).

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators":
    SplitMix64, entered at the counter instead of stepped through. Under a secret: FIPS 197, AES
    of (client, counter), as in counter mode.

    Args:
        stream: (n,), from `streams`; or any shape that fits the counters'.
        counter: int64 (n,), non-negative; which draw of its stream each is.
    """
    if stream.key is not None:
        return _encrypted(stream.key, stream.start, counter.astype(np.uint64))
    return scatter(stream.start + counter.astype(np.uint64) * _GOLDEN)


def _encrypted(
    key: bytes, start: NDArray[np.uint64], counter: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """The first half of each block that AES makes of (start, counter)."""
    shape = np.broadcast_shapes(start.shape, counter.shape)
    pairs = [np.broadcast_to(part, shape).ravel() for part in (start, counter)]
    drawn = np.empty(len(pairs[0]), np.uint64)
    # ECB gives away which blocks are alike, and no two are.
    aes = Cipher(AES(key), ECB()).encryptor()  # noqa: S305
    for first in range(0, len(drawn), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        blocks = np.stack([pair[part] for pair in pairs], axis=1).astype("<u8")
        drawn[part] = np.frombuffer(aes.update(blocks.tobytes()), "<u8")[::2]
    return drawn.reshape(shape)


def below(bits: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """Integers in [0, bound) from random bits; bound under 2**31, bias under bound / 2**32."""
    return ((bits >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def scatter(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finish SplitMix64: every input bit changes half of the output bits."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))

"""One seed, one generator per role: results depend on no order, engine, hosting or worker."""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray


def generator(seed: int, role: str, round_: int = 0, client: int = 0) -> np.random.Generator:
    """The generator of one draw, derived from its address and nothing else.

    Args:
        seed: the experiment's seed, non-negative.
        role: what is drawn, such as "cohort", "negatives" or "shuffle".
        round_: the round the draw belongs to; 0 when it belongs to none.
        client: the client or user the draw belongs to; 0 when it belongs to none.

    Returns:
        A fresh generator; the same address always gives the same stream.
    """
    # crc32, not hash(): Python salts hash() anew in every process.
    return np.random.default_rng((seed, crc32(role.encode()), round_, client))


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def streams(seed: int, role: str, round_: int, clients: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The counter-based streams of many clients at once, each known by its address alone.

    A generator per client costs more than training a small client does; a stream costs nothing
    and its draws can be taken in any order, one or a million at a time.

    Args:
        seed: the experiment's seed, non-negative.
        role: what is drawn.
        round_: the round the draws belong to.
        clients: int64 (n,), client codes.

    Returns:
        uint64 (n,): for `draw`.
    """
    base = np.random.SeedSequence((seed, crc32(role.encode()), round_)).generate_state(1, np.uint64)
    return scatter(base + scatter(clients.astype(np.uint64) * _GOLDEN + _GOLDEN))


def draw(stream: NDArray[np.uint64], counter: NDArray[np.int64]) -> NDArray[np.uint64]:
    """64 random bits for each (stream, counter).

    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators":
    SplitMix64, entered at the counter instead of stepped through.

    Args:
        stream: uint64 (n,), from `streams`.
        counter: int64 (n,), non-negative; which draw of its stream each is.
    """
    return scatter(stream + counter.astype(np.uint64) * _GOLDEN)


def below(bits: NDArray[np.uint64], bound: int) -> NDArray[np.int64]:
    """Integers in [0, bound) from random bits; bound under 2**31, bias under bound / 2**32."""
    return ((bits >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def scatter(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Finish SplitMix64: every input bit changes half of the output bits."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))

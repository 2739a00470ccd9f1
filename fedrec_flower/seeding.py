"""One seed, one generator per role: results depend on no order, engine, hosting or worker."""

from zlib import crc32

import numpy as np


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

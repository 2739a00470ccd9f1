"""The fingerprint of a split, so that two runs can show they were judged on the same test set.

Byte form: one line per test interaction, `user TAB item TAB timestamp NEWLINE` in UTF-8, with the
original ids and the timestamp in whole seconds since 1970 (empty where time is unknown; fractions
of a second are cut here, not where interactions are put in order). Lines ascend by user, then item,
then timestamp; integer ids by value, strings by code point. For integer ids, any machine can check
it: `sort -n -k1,1 -k2,2 -k3,3 test.tsv | sha256sum`.
"""

from hashlib import sha256

import numpy as np

from fedrec_flower.interactions import Interactions, Part, Split

_CHUNK = 1_000_000  # lines in memory at once


def split_sha256(interactions: Interactions, split: Split) -> str:
    """SHA-256 of the sorted test triples, in the byte form above.

    Args:
        interactions: n interactions.
        split: labels of those n interactions.

    Returns:
        64 hexadecimal digits; the file order does not change them.
    """
    rows = split.rows(Part.TEST)
    user, item = interactions.user[rows], interactions.item[rows]
    ticks = interactions.timestamp
    times = None if ticks is None else ticks[rows] // interactions.ticks_per_second
    # Codes follow the sorted original ids, so sorting codes sorts ids.
    order = np.lexsort((item, user) if times is None else (times, item, user))
    digest = sha256()
    for start in range(0, len(order), _CHUNK):
        chunk = order[start : start + _CHUNK]
        users = interactions.user_ids[user[chunk]].tolist()
        items = interactions.item_ids[item[chunk]].tolist()
        stamps = [""] * len(chunk) if times is None else times[chunk].tolist()
        triples = zip(users, items, stamps, strict=True)
        digest.update("".join(f"{u}\t{i}\t{t}\n" for u, i, t in triples).encode())
    return digest.hexdigest()

"""Splits and histories that the tests of splits share."""

import numpy as np

from fedrec_flower.data.interactions import Interactions, Part
from fedrec_flower.data.splits.cold_start import ColdItems, ColdUsers
from fedrec_flower.data.splits.leave_one_out import LeaveLastFraction, LeaveOneOut
from fedrec_flower.data.splits.random import Random
from fedrec_flower.data.splits.temporal import Temporal

ONE_OUT = LeaveOneOut(1, ties="hash", negatives="honest")
LAST = LeaveLastFraction(0.2, 0.3, ties="hash", negatives="honest")
TEMPORAL = Temporal(0.2, 0.3, negatives="honest")
PER_USER = Random("user", 0.2, 0.3, negatives="honest")
OVERALL = Random("global", 0.2, 0.3, negatives="honest")
COLD_ITEMS = ColdItems(0.2, 0.3, negatives="honest")
COLD_USERS = ColdUsers(0.4, num_support=0, ties="hash", negatives="honest")

TRAIN, VALIDATION, TEST = Part.TRAIN, Part.VALIDATION, Part.TEST


def interactions(users: list[int], items: list[int], times: list[int] | None) -> Interactions:
    """Interactions of integer codes; the original ids are others, and not contiguous."""
    return Interactions(
        user=np.array(users, dtype=np.int32),
        item=np.array(items, dtype=np.int32),
        rating=None,
        timestamp=None if times is None else np.array(times, dtype=np.int64),
        user_ids=np.arange(max(users, default=0) + 1) * 3 + 7,
        item_ids=np.array([f"item-{item:04}" for item in range(max(items, default=0) + 1)]),
    )


def history(*times: int) -> Interactions:
    """One user whose i-th interaction, with item i, happened at times[i]."""
    return interactions([0] * len(times), list(range(len(times))), list(times))

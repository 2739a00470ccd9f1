"""Run folders with the ranks of forty users."""

from math import log2
from pathlib import Path
from typing import Any

from tests.helpers.run_folders import Ranks, write_run

USERS = [f"user {number}" for number in range(40)]
GOOD: Ranks = {user: [1 + number % 12] for number, user in enumerate(USERS)}
BAD: Ranks = {user: [1 + number % 40] for number, user in enumerate(USERS)}


def hit_rate(ranks: Ranks) -> float:
    return sum(rank <= 10 for (rank,) in ranks.values()) / len(ranks)


def gain(rank: int) -> float:
    return 1 / log2(rank + 1) if rank <= 10 else 0.0


def write_tested(folder: Path, ranks: Ranks, **changes: Any) -> None:
    """A run whose summary says what its users say."""
    hr = hit_rate(ranks)
    ndcg = sum(gain(rank) for (rank,) in ranks.values()) / len(ranks)
    write_run(folder, ranks, **({"test": {"hr@10": hr, "ndcg@10": ndcg}} | changes))

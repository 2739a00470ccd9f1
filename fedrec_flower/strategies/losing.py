"""Replies that are missing or left out: what kind of loss each is, and words for them."""

import logging
from collections import defaultdict
from collections.abc import Mapping

_LOG = logging.getLogger(__name__)

_EXPECTED = ("dropped_out", "late", "crashed")  # the world as configured: counted, not warned of
_NAMED_AT_MOST = 5


def kind_of(reason: str) -> str:
    """The kind of a reason such as "not_finite: item_bias.weight"."""
    return reason.partition(":")[0]


def said(lost: Mapping[str, int]) -> str:
    """Losses by kind, in words."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(lost.items())) or "no reply"


def warn_of(round_: int, lost: Mapping[int, str]) -> None:
    """Name the clients whose replies were left out, one line per kind.

    Args:
        round_: the round.
        lost: the reason for each client code.
    """
    clients = defaultdict(list)
    for client, reason in lost.items():
        clients[kind_of(reason)].append(client)
    for kind, affected in clients.items():
        if kind not in _EXPECTED:
            some = ", ".join(map(str, affected[:_NAMED_AT_MOST]))
            more = f" and {len(affected) - _NAMED_AT_MOST} more" * (len(affected) > _NAMED_AT_MOST)
            reason = lost[affected[0]]
            _LOG.warning("round %d: left out client %s%s: %s", round_, some, more, reason)

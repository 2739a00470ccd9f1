"""Replies that are missing or left out: what kind of loss each is, and words for them."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_LOG = logging.getLogger(__name__)

_EXPECTED = ("dropped_out", "late", "crashed")  # the world as configured: counted, not warned of
_NAMED_AT_MOST = 5


def kind_of(reason: str) -> str:
    """The kind of a reason such as "not_finite: item_bias.weight"."""
    return reason.partition(":")[0]


def said(lost: Mapping[str, int]) -> str:
    """Losses by kind, in words."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(lost.items())) or "no reply"


@dataclass(slots=True)
class Losses:
    """What was lost on the way to something, however often it was tried.

    Attributes:
        when: to what, such as "round 3"; every warning begins so.
        kinds: how many replies, by kind.
    """

    when: str
    kinds: Counter[str] = field(default_factory=Counter)
    _told: set[str] = field(default_factory=set)

    def add(self, lost: Mapping[int, str]) -> None:
        """Count what an attempt lost, and warn of what was not said of an earlier one.

        Args:
            lost: the reason for each client code.
        """
        self.kinds += Counter(map(kind_of, lost.values()))
        new = [sentence for sentence in _sentences(lost) if sentence not in self._told]
        for sentence in new:
            _LOG.warning("%s: %s", self.when, sentence)
        self._told.update(new)


def _sentences(lost: Mapping[int, str]) -> Iterator[str]:
    """The clients whose replies were left out, a sentence for each kind that was not expected."""
    clients = defaultdict(list)
    for client, reason in lost.items():
        clients[kind_of(reason)].append(client)
    for kind, affected in clients.items():
        if kind not in _EXPECTED:
            some = ", ".join(map(str, affected[:_NAMED_AT_MOST]))
            more = f" and {len(affected) - _NAMED_AT_MOST} more" * (len(affected) > _NAMED_AT_MOST)
            yield f"left out client {some}{more}: {lost[affected[0]]}"

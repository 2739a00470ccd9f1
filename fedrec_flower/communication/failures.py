"""Replies that are missing or left out: what kind of loss each is, and words for them."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_LOG = logging.getLogger(__name__)

FAILED = "a_node_failed"
"""The kind of a loss where a node says itself that it failed; what follows are its own words."""

_EXPECTED = ("dropped_out", "late", "crashed")  # the world as configured: counted, not warned of
_NAMED_AT_MOST = 5


def kind_of(reason: str) -> str:
    """The kind of a reason such as "not_finite: item_bias.weight"."""
    return reason.partition(":")[0]


def said(lost: Mapping[str, int]) -> str:
    """Losses by kind, in words."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(lost.items())) or "no reply"


def words_of_nodes(lost: Mapping[int, str]) -> str:
    """What a node said of its failure, if nothing was lost but by failing nodes; else nothing."""
    if {*map(kind_of, lost.values())} != {FAILED}:
        return ""
    return next(iter(lost.values())).partition(": ")[2]


@dataclass(slots=True)
class Losses:
    """What was lost on the way to something, however often it was tried.

    Attributes:
        when: to what, such as "round 3"; every warning begins so.
        named: whether warnings name clients. Where privacy counts on chance, who was in a cohort
            must not be known, and warnings give numbers.
        kinds: how many replies, by kind.
    """

    when: str
    named: bool = True
    kinds: Counter[str] = field(default_factory=Counter)
    _said: set[str] = field(default_factory=set)
    _unsaid: list[str] = field(default_factory=list)

    def add(self, lost: Mapping[int, str]) -> None:
        """Count what an attempt lost, and warn of what was not said of an earlier one.

        Args:
            lost: the reason for each client code.
        """
        self.kinds += Counter(map(kind_of, lost.values()))
        sentences = _sentences(lost, named=self.named)
        self._unsaid += [words for words in sentences if words not in self._said]
        self._said.update(self._unsaid)
        if not words_of_nodes(lost):  # with these the run may end, and once is enough
            self.warn()

    def warn(self) -> None:
        """Say what is unsaid."""
        for words in self._unsaid:
            _LOG.warning("%s: %s", self.when, words)
        self._unsaid.clear()


def _sentences(lost: Mapping[int, str], *, named: bool) -> Iterator[str]:
    """The clients whose replies were left out, a sentence for each kind that was not expected."""
    clients = defaultdict(list)
    for client, reason in lost.items():
        clients[kind_of(reason)].append(client)
    for kind, affected in clients.items():
        if kind in _EXPECTED:
            continue
        if named:
            some = ", ".join(map(str, affected[:_NAMED_AT_MOST]))
            more = f" and {len(affected) - _NAMED_AT_MOST} more" * (len(affected) > _NAMED_AT_MOST)
            yield f"left out client {some}{more}: {lost[affected[0]]}"
        else:
            yield f"left out {len(affected)} of the clients: {lost[affected[0]]}"

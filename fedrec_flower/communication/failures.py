"""Counts and logs client replies that are missing or rejected."""

import logging
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from fedrec_flower.core.failures import Failure, FailureKind

_LOG = logging.getLogger(__name__)

# Faults that the configuration asks for: counted, not logged.
_SIMULATED = frozenset({FailureKind.DROPPED_OUT, FailureKind.LATE, FailureKind.CRASHED})
_MAX_NAMED_CLIENTS = 5


def format_counts(counts: Mapping[str, int]) -> str:
    """Return numbers of failures by kind as text, for example "3 dropped_out, 2 late"."""
    if not counts:
        return "no reply"
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def node_error(failures: Mapping[int, Failure]) -> str:
    """Return a node's error text if all failures are errors of nodes, otherwise "".

    Args:
        failures: failures by client code.
    """
    if {failure.kind for failure in failures.values()} != {FailureKind.NODE_FAILED}:
        return ""
    return next(iter(failures.values())).detail


@dataclass(slots=True)
class ClientFailures:
    """Failures of one round or evaluation, over all its attempts.

    Attributes:
        when: the round or evaluation, such as "round 3"; the start of every warning.
        named: whether warnings contain client codes. Where privacy relies on random cohorts, the
            members of a cohort must stay secret, and warnings contain numbers only.
        kinds: number of failed replies by `FailureKind`.
    """

    when: str
    named: bool = True
    kinds: Counter[str] = field(default_factory=Counter)
    _seen: set[str] = field(default_factory=set)
    _pending: list[str] = field(default_factory=list)

    def add(self, failures: Mapping[int, Failure]) -> None:
        """Count the failures of an attempt and log those that no earlier attempt had.

        Args:
            failures: failures by client code.
        """
        self.kinds += Counter(failure.kind for failure in failures.values())
        sentences = _sentences(failures, named=self.named)
        self._pending += [sentence for sentence in sentences if sentence not in self._seen]
        self._seen.update(self._pending)
        if not node_error(failures):  # a node's error may end the run, and then is its message
            self.warn()

    def warn(self) -> None:
        """Log the pending warnings."""
        for sentence in self._pending:
            _LOG.warning("%s: %s", self.when, sentence)
        self._pending.clear()


def _sentences(failures: Mapping[int, Failure], *, named: bool) -> Iterator[str]:
    """Yield one sentence per kind of failure, without simulated faults."""
    clients = defaultdict(list)
    for client, failure in failures.items():
        clients[failure.kind].append(client)
    for kind, affected in clients.items():
        if kind in _SIMULATED:
            continue
        first = failures[affected[0]]
        if named:
            yield f"left out client {_client_list(affected)}: {first}"
        else:
            yield f"left out {len(affected)} of the clients: {first}"


def _client_list(clients: list[int]) -> str:
    listed = ", ".join(map(str, clients[:_MAX_NAMED_CLIENTS]))
    if len(clients) <= _MAX_NAMED_CLIENTS:
        return listed
    return f"{listed} and {len(clients) - _MAX_NAMED_CLIENTS} more"

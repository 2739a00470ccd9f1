"""The server's side of the protocol: carries what members say, and adds up what it cannot read.

All it ever holds are public keys, encrypted shares, the sum of masked vectors, and the shares that
members reveal.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fedrec_flower.communication.secure_aggregation.messages import (
    Contribution,
    PublicKeys,
    RevealedShares,
    UnmaskRequest,
)
from fedrec_flower.communication.secure_aggregation.primitives import (
    KeyPair,
    Masked,
    Neighbours,
    combined,
    common_mask,
    is_connected,
    is_public_key,
    self_mask,
    well_connected,
)
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.failures import FailureKind

Ciphertexts = Mapping[int, bytes]


class TooFewError(TrainingError):
    """Too many members have dropped out: nothing is released.

    Attributes:
        kind: of the loss, for those whose vectors are not used.
    """

    kind = FailureKind.TOO_FEW_NODES


class TooFewClientsError(TooFewError):
    """The sum would hold too few clients: no shares are asked for."""

    kind = FailureKind.TOO_FEW_CLIENTS


@dataclass(slots=True)
class Coordinator:
    """One session; its four methods are called in order, each with what has arrived.

    A member that is missing from what a stage is given has dropped out, and so has one around
    whom too few are left.

    Attributes:
        neighbours: of every member, from `neighbourhoods`.
        threshold: how many shares make up a secret.
        min_clients: fewest clients in the vectors of a member and its neighbours.
        keys: public keys of the members that advertised.
        sharing: the members that shared.
        clients: number of clients in the vector of each member that is in the sum.
        total: the sum of masked vectors; empty before the first.
    """

    neighbours: Neighbours
    threshold: int
    min_clients: int = 1
    keys: dict[int, PublicKeys] = field(default_factory=dict)
    sharing: frozenset[int] = frozenset()
    clients: dict[int, int] = field(default_factory=dict)
    total: Masked = field(default_factory=lambda: np.zeros(0, np.uint32))

    @property
    def masked(self) -> frozenset[int]:
        """The members whose vectors are in the sum."""
        return frozenset(self.clients)

    @property
    def num_clients(self) -> int:
        """Number of clients in the sum, as the members give it."""
        return sum(self.clients.values())

    def advertised(self, keys: Mapping[int, PublicKeys]) -> dict[int, dict[int, PublicKeys]]:
        """Take public keys; give each member those of its neighbours.

        Raises:
            TooFewError: if there are not enough members to go on.
        """
        kept = self._enough(_distinct(keys))
        self.keys = {member: keys[member] for member in sorted(kept)}
        return {m: {n: keys[n] for n in sorted(self.neighbours[m] & kept)} for m in self.keys}

    def shared(self, sent: Mapping[int, Ciphertexts]) -> dict[int, dict[int, bytes]]:
        """Take the shares that each member encrypted for its neighbours; give each its own.

        Raises:
            TooFewError: if there are not enough members to go on.
        """
        wanted = {m: self.neighbours[m] & self.keys.keys() for m in self.keys}
        complete = {m for m in self.keys if m in sent and sent[m].keys() == wanted[m]}
        self.sharing = self._enough(complete)
        return {
            member: {n: sent[n][member] for n in sorted(self.neighbours[member] & self.sharing)}
            for member in sorted(self.sharing)
        }

    def add(self, contributions: Iterable[tuple[int, Contribution]]) -> dict[int, UnmaskRequest]:
        """Add up masked vectors; give each survivor what it is to reveal.

        Args:
            contributions: by member, their vectors all of one kind and length.

        Raises:
            TooFewError: if the sum could not be unmasked, or could be taken apart: where the
                graph of the survivors falls into pieces, the masks of each piece cancel.
            TooFewClientsError: if a member would refuse, for its neighbours and itself speak for
                too few clients.
        """
        tags = dict[int, Mapping[int, bytes]]()
        for member, part in contributions:
            if member in self.sharing - tags.keys():
                self.total = np.add(self.total, part.vector) if tags else part.vector.copy()
                tags[member], self.clients[member] = part.tags, part.clients
        for member in sorted(self.masked | self._missing()):
            self._require_enough(len(self._holders(member) & self.masked), member)
        if not self.masked or not is_connected(self.neighbours, self.masked):
            raise TooFewError(
                f"the {len(self.masked)} nodes left are not connected by masks: raise "
                "secure_aggregation.num_neighbours"
            )
        return {member: self._wanted(member, tags) for member in sorted(self.masked)}

    def _wanted(self, member: int, tags: Mapping[int, Mapping[int, bytes]]) -> UnmaskRequest:
        others = sorted(self.neighbours[member] & self.masked)
        counts = {other: self.clients[other] for other in others}
        around = self.clients[member] + sum(counts.values())
        if around < self.min_clients:
            raise TooFewClientsError(
                f"node {member} and its neighbours speak for {around} clients, and "
                f"secure_aggregation.min_clients={self.min_clients}: lower it, or raise "
                "clients_per_round or secure_aggregation.num_neighbours"
            )
        return UnmaskRequest(
            survivors=frozenset({member, *others}),
            dropouts=self.neighbours[member] & self._missing(),
            clients=counts,
            tags={other: tags[other].get(member, b"") for other in others},
        )

    def unmask(self, revealed: Mapping[int, RevealedShares]) -> Masked:
        """The sum of the vectors of all members in `masked`, from the shares of those that reply.

        Raises:
            TooFewError: if there are too few shares of anyone, or they do not fit: nothing is
                released.
        """
        total, like = self.total.copy(), (len(self.total), self.total.dtype)
        replied = {m: told for m, told in revealed.items() if m in self.masked}
        for member in sorted(self.masked):
            told = [r.seeds[member] for r in replied.values() if member in r.seeds]
            total -= self_mask(self._combined(told, member), *like)
        for member in sorted(self._missing()):
            told = [r.keys[member] for r in replied.values() if member in r.keys]
            pair = self._pair(told, member)
            for other in sorted(self.neighbours[member] & self.masked):
                common = common_mask(pair.agreed(self.keys[other].masking), *like)
                (np.subtract if other < member else np.add)(total, common, out=total)
        return total

    def _missing(self) -> frozenset[int]:
        """Who shared, sent no vector, and has left masks in the vectors of others."""
        gone = self.sharing - self.masked
        return frozenset(member for member in gone if self.neighbours[member] & self.masked)

    def _holders(self, member: int) -> frozenset[int]:
        """Who holds shares of a member's secrets and took part until the masking."""
        return (self.neighbours[member] | {member}) & self.sharing

    def _enough(self, present: Iterable[int]) -> frozenset[int]:
        """Those of the members that can go on."""
        kept = well_connected(self.neighbours, frozenset(present), self.threshold)
        if not kept:
            raise TooFewError(self._too_few("nobody has"))
        return kept

    def _require_enough(self, count: int, member: int) -> None:
        if count < self.threshold:
            raise TooFewError(self._too_few(f"node {member} has {count}, not"))

    def _combined(self, shares: list[bytes], member: int) -> bytes:
        self._require_enough(len(shares), member)
        try:
            return combined(shares[: self.threshold])
        except ValueError as error:
            raise TooFewError(f"the shares of node {member} do not fit: {error}") from error

    def _pair(self, shares: list[bytes], member: int) -> KeyPair:
        private = self._combined(shares, member)
        try:
            pair = KeyPair.restored(private)
        except ValueError:
            pair = None
        if pair is None or pair.public != self.keys[member].masking:
            raise TooFewError(f"the key that shares of node {member} make up is not its own")
        return pair

    def _too_few(self, who: str) -> str:
        return (
            f"{who} {self.threshold} of itself and its neighbours left: lower "
            "secure_aggregation.threshold, or let more nodes take part"
        )


def _distinct(keys: Mapping[int, PublicKeys]) -> list[int]:
    """The members whose keys can be used, and are nobody else's."""
    count = Counter(key for pair in keys.values() for key in {pair.encryption, pair.masking})
    return [
        member
        for member, pair in keys.items()
        if pair.encryption != pair.masking
        and all(count[key] == 1 and is_public_key(key) for key in (pair.encryption, pair.masking))
    ]

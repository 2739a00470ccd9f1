"""The coordinator (server) of a session: forwards messages of members and adds masked vectors.

It only ever has public keys, encrypted shares, the sum of masked vectors, and the shares that
members reveal.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

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
    is_connected,
    is_public_key,
    pairwise_mask,
    reconstruct_secret,
    self_mask,
    well_connected,
)
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.failures import FailureKind

Ciphertexts = Mapping[int, bytes]


class TooFewError(TrainingError):
    """Raised if too many members have dropped out; no sum is released.

    Attributes:
        kind: failure kind of the clients whose vectors are not used.
    """

    kind: ClassVar[FailureKind] = FailureKind.TOO_FEW_NODES


class TooFewClientsError(TooFewError):
    """Raised if the sum would contain too few clients; no shares are asked for."""

    kind: ClassVar[FailureKind] = FailureKind.TOO_FEW_CLIENTS


@dataclass(slots=True)
class Coordinator:
    """One session. Its four methods are called in order, each with the received messages.

    A member without a message in a stage has dropped out, and so has a member with too few
    remaining neighbours.

    Attributes:
        neighbours: neighbours of every member, from `neighbourhoods`.
        threshold: number of shares that reconstruct a secret.
        min_clients: minimum number of clients in the vectors of a member and its neighbours.
        keys: public keys of the members that sent them.
        sharing: members that sent shares.
        clients: number of clients in the vector of each member in the sum.
        total: sum of masked vectors; empty before the first one.
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
        """Members whose vectors are in the sum."""
        return frozenset(self.clients)

    @property
    def num_clients(self) -> int:
        """Number of clients in the sum, as claimed by the members."""
        return sum(self.clients.values())

    def collect_keys(self, keys: Mapping[int, PublicKeys]) -> dict[int, dict[int, PublicKeys]]:
        """Store public keys; return for each member the keys of its neighbours.

        Raises:
            TooFewError: if too few members remain.
        """
        remaining = self._require_remaining(_unique_valid(keys))
        self.keys = {member: keys[member] for member in sorted(remaining)}
        return {
            member: {n: keys[n] for n in sorted(self.neighbours[member] & remaining)}
            for member in self.keys
        }

    def collect_shares(self, sent: Mapping[int, Ciphertexts]) -> dict[int, dict[int, bytes]]:
        """Forward encrypted shares: return for each member the shares of its neighbours.

        Args:
            sent: by sender, the ciphertexts by receiver.

        Returns:
            By receiver, the ciphertexts by sender.

        Raises:
            TooFewError: if too few members remain.
        """
        receivers = {member: self.neighbours[member] & self.keys.keys() for member in self.keys}
        complete = {
            member
            for member in self.keys
            if member in sent and sent[member].keys() == receivers[member]
        }
        self.sharing = self._require_remaining(complete)
        return {
            member: {n: sent[n][member] for n in sorted(self.neighbours[member] & self.sharing)}
            for member in sorted(self.sharing)
        }

    def add_vectors(
        self, contributions: Iterable[tuple[int, Contribution]]
    ) -> dict[int, UnmaskRequest]:
        """Add masked vectors; return for each survivor the request for its shares.

        Args:
            contributions: contributions by member, all vectors of the same type and length.

        Raises:
            TooFewError: if the sum could not be unmasked, or could be separated: if the graph of
                the survivors has several components, the masks of each component cancel.
            TooFewClientsError: if a member would refuse to reveal shares, because its neighbours
                and itself have too few clients.
        """
        tags = dict[int, Mapping[int, bytes]]()
        for member, contribution in contributions:
            if member not in self.sharing or member in tags:
                continue
            if tags:
                self.total = np.add(self.total, contribution.vector)
            else:
                self.total = contribution.vector.copy()
            tags[member] = contribution.tags
            self.clients[member] = contribution.clients
        for member in sorted(self.masked | self._dropouts()):
            self._require_enough(len(self._holders(member) & self.masked), member)
        if not self.masked or not is_connected(self.neighbours, self.masked):
            raise TooFewError(
                f"the {len(self.masked)} nodes left are not connected by masks: raise "
                "secure_aggregation.num_neighbours"
            )
        return {member: self._unmask_request(member, tags) for member in sorted(self.masked)}

    def _unmask_request(
        self, member: int, tags: Mapping[int, Mapping[int, bytes]]
    ) -> UnmaskRequest:
        survivors = sorted(self.neighbours[member] & self.masked)
        clients = {survivor: self.clients[survivor] for survivor in survivors}
        num_clients = self.clients[member] + sum(clients.values())
        if num_clients < self.min_clients:
            raise TooFewClientsError(
                f"node {member} and its neighbours have {num_clients} clients, and "
                f"secure_aggregation.min_clients={self.min_clients}: lower it, or raise "
                "clients_per_round or secure_aggregation.num_neighbours"
            )
        return UnmaskRequest(
            survivors=frozenset({member, *survivors}),
            dropouts=self.neighbours[member] & self._dropouts(),
            clients=clients,
            tags={survivor: tags[survivor].get(member, b"") for survivor in survivors},
        )

    def unmask(self, revealed: Mapping[int, RevealedShares]) -> Masked:
        """Return the sum of the vectors of all members in `masked`.

        Args:
            revealed: shares by the member that revealed them.

        Raises:
            TooFewError: if there are too few shares of a secret, or they do not match.
        """
        total = self.total.copy()
        length, dtype = len(total), total.dtype
        replies = [shares for member, shares in revealed.items() if member in self.masked]
        for member in sorted(self.masked):
            seeds = [shares.seeds[member] for shares in replies if member in shares.seeds]
            total -= self_mask(self._reconstruct(seeds, member), length, dtype)
        for member in sorted(self._dropouts()):
            keys = [shares.keys[member] for shares in replies if member in shares.keys]
            pair = self._reconstruct_key_pair(keys, member)
            for neighbour in sorted(self.neighbours[member] & self.masked):
                shared_key = pair.shared_key(self.keys[neighbour].masking)
                mask = pairwise_mask(shared_key, length, dtype)
                # Remove the mask that the neighbour added or subtracted.
                if neighbour < member:
                    np.subtract(total, mask, out=total)
                else:
                    np.add(total, mask, out=total)
        return total

    def _dropouts(self) -> frozenset[int]:
        """Members that sent shares and no vector, and whose masks are in vectors of neighbours."""
        missing = self.sharing - self.masked
        return frozenset(member for member in missing if self.neighbours[member] & self.masked)

    def _holders(self, member: int) -> frozenset[int]:
        """Members that hold shares of a member's secrets."""
        return (self.neighbours[member] | {member}) & self.sharing

    def _require_remaining(self, present: Iterable[int]) -> frozenset[int]:
        """Return the members that have enough present neighbours."""
        remaining = well_connected(self.neighbours, frozenset(present), self.threshold)
        if not remaining:
            raise TooFewError(self._too_few("no node has"))
        return remaining

    def _require_enough(self, count: int, member: int) -> None:
        if count < self.threshold:
            raise TooFewError(self._too_few(f"node {member} has {count}, not"))

    def _reconstruct(self, shares: list[bytes], member: int) -> bytes:
        self._require_enough(len(shares), member)
        try:
            return reconstruct_secret(shares[: self.threshold])
        except ValueError as error:
            raise TooFewError(f"the shares of node {member} do not match: {error}") from error

    def _reconstruct_key_pair(self, shares: list[bytes], member: int) -> KeyPair:
        private = self._reconstruct(shares, member)
        try:
            pair = KeyPair.from_private_key(private)
        except ValueError:
            pair = None
        if pair is None or pair.public != self.keys[member].masking:
            raise TooFewError(f"the key reconstructed from shares of node {member} is not its own")
        return pair

    def _too_few(self, subject: str) -> str:
        return (
            f"{subject} {self.threshold} of itself and its neighbours left: lower "
            "secure_aggregation.threshold, or let more nodes take part"
        )


def _unique_valid(keys: Mapping[int, PublicKeys]) -> list[int]:
    """Return the members whose keys are valid and not used by another member."""
    count = Counter(key for pair in keys.values() for key in {pair.encryption, pair.masking})
    return [
        member
        for member, pair in keys.items()
        if pair.encryption != pair.masking
        and all(count[key] == 1 and is_public_key(key) for key in (pair.encryption, pair.masking))
    ]

"""A member (node) in a session of secure aggregation: keeps its secrets and checks requests."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from hmac import compare_digest
from math import ceil
from typing import Any, Self

import numpy as np
from cryptography.fernet import InvalidToken
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt
from flwr.common.secure_aggregation.secaggplus_utils import (
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)

from fedrec_flower.communication.secure_aggregation.messages import (
    Contribution,
    PublicKeys,
    RevealedShares,
    UnmaskRequest,
)
from fedrec_flower.communication.secure_aggregation.primitives import (
    KeyPair,
    Masked,
    authentication_tag,
    pairwise_mask,
    random_seed,
    self_mask,
    split_secret,
)
from fedrec_flower.core.errors import TrainingError


class RefusedError(TrainingError):
    """Raised for a request that violates the protocol. The member's state is unchanged."""


class Stage(IntEnum):
    """The next step of a member."""

    SHARE = 1
    OPEN = 2
    MASK = 3
    UNMASK = 4
    OVER = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """Requirements of a member, from its own settings, that hold for every session.

    The server chooses the neighbours of a member and their number; a member cannot check how many
    nodes take part. It requires `min_nodes` holders of its shares, itself included, but not
    `num_neighbours`. Public keys are not certified, so a server that invents members can satisfy
    all rules.

    Attributes:
        share: share of a member and its neighbours that can reconstruct a secret; above 0.5.
        min_nodes: minimum number of members that can reconstruct a secret.
        min_clients: minimum number of clients in the vectors of a member and its surviving
            neighbours.
    """

    share: float
    min_nodes: int
    min_clients: int

    def threshold(self, num_holders: int) -> int:
        """Return the minimum threshold of a secret whose shares `num_holders` members hold."""
        # Exact arithmetic on the configured decimal: 0.6 * 5 in floating point may exceed 3.
        return max(ceil(Fraction(str(self.share)) * num_holders), self.min_nodes)


@dataclass(frozen=True, slots=True)
class Shares:
    """One share of each of a member's two secrets.

    Attributes:
        seed: share of the seed of its self mask.
        key: share of its private masking key.
    """

    seed: bytes
    key: bytes


@dataclass(slots=True)
class Member:
    """One member in one session; each stage is passed once, in order.

    Attributes:
        place: number of the member in the session.
        threshold: number of shares that reconstruct a secret of any member.
        rules: requirements of the member.
        encryption: key pair for shares that other members send to it.
        masking: key pair for pairwise masks.
        stage: the next step.
        seed: seed of its self mask; empty before it shares.
        keys: public keys of its neighbours, by place.
        held: shares that it holds, by the place of the secrets' owner.
        clients: number of clients in its vector.
    """

    place: int
    threshold: int
    rules: Rules
    encryption: KeyPair
    masking: KeyPair
    stage: Stage = Stage.SHARE
    seed: bytes = b""
    keys: dict[int, PublicKeys] = field(default_factory=dict)
    held: dict[int, Shares] = field(default_factory=dict)
    clients: int = 0

    @classmethod
    def create(cls, place: int, threshold: int, rules: Rules) -> Self:
        """Return a member with new keys; it then sends its `public` keys."""
        return cls(place, threshold, rules, KeyPair.generate(), KeyPair.generate())

    @property
    def public(self) -> PublicKeys:
        """Public keys of the member."""
        return PublicKeys(self.encryption.public, self.masking.public)

    def share(self, keys: Mapping[int, PublicKeys]) -> dict[int, bytes]:
        """Split the member's secrets among itself and its neighbours.

        Args:
            keys: public keys of the neighbours, by place.

        Returns:
            Encrypted shares for each neighbour.

        Raises:
            RefusedError: if the threshold is below the member's rules; if there are too few
                holders, or so many that two disjoint groups of them could each reconstruct a
                secret; or if a neighbour appears twice.
        """
        self._require_stage(Stage.SHARE)
        holders = sorted({self.place, *keys})
        all_keys = [key for pair in (self.public, *keys.values()) for key in _both(pair)]
        _require(
            self.place not in keys and len(set(all_keys)) == len(all_keys),
            f"member {self.place} is its own neighbour, or two have the same key",
        )
        _require(
            self.threshold <= len(holders) < 2 * self.threshold,
            f"a threshold of {self.threshold} does not protect a secret that {len(holders)} share",
        )
        min_threshold = self.rules.threshold(len(holders))
        _require(
            self.threshold >= min_threshold,
            f"a threshold of {self.threshold} for {len(holders)} nodes is below the "
            f"{min_threshold} that the settings of this node demand",
        )
        self.seed = random_seed()
        self.keys = dict(keys)
        seed_shares = split_secret(self.seed, self.threshold, len(holders))
        key_shares = split_secret(self.masking.private, self.threshold, len(holders))
        shares = dict(zip(holders, map(Shares, seed_shares, key_shares), strict=True))
        self.held[self.place] = shares.pop(self.place)
        self.stage = Stage.OPEN
        return {holder: self._encrypt(holder, part) for holder, part in shares.items()}

    def open(self, encrypted: Mapping[int, bytes]) -> None:
        """Store the shares of the neighbours with which the member will have pairwise masks.

        Args:
            encrypted: encrypted shares by sender; missing neighbours have dropped out.

        Raises:
            RefusedError: if there are too few shares, or shares of a member that is not a
            neighbour.
        """
        self._require_stage(Stage.OPEN)
        _require(encrypted.keys() <= self.keys.keys(), "shares come from a stranger")
        _require(
            len(encrypted) + 1 >= self.threshold,
            f"{len(encrypted)} neighbours shared, too few for a threshold of {self.threshold}",
        )
        opened = {sender: self._decrypt(sender, text) for sender, text in encrypted.items()}
        self.held |= opened
        self.stage = Stage.MASK

    def mask(self, values: Masked, clients: int) -> Contribution:
        """Mask a vector; arithmetic is modulo the range of its unsigned integers.

        Args:
            values: uint32 or uint64 (length,); not modified.
            clients: number of clients in the vector.

        Raises:
            RefusedError: if this is not the member's next step.
        """
        self._require_stage(Stage.MASK)
        masked = values + self_mask(self.seed, len(values), values.dtype)
        neighbours = sorted(self.held.keys() - {self.place})
        for neighbour in neighbours:
            shared_key = _shared_key(self.masking, self.keys[neighbour].masking)
            mask = pairwise_mask(shared_key, len(values), values.dtype)
            if self.place < neighbour:
                np.add(masked, mask, out=masked)
            else:
                np.subtract(masked, mask, out=masked)
        self.stage = Stage.UNMASK
        self.clients = clients
        tags = {
            neighbour: authentication_tag(
                self._encryption_key(neighbour), self.place, neighbour, clients
            )
            for neighbour in neighbours
        }
        return Contribution(masked, clients, tags)

    def unmask(self, wanted: UnmaskRequest) -> RevealedShares:
        """Reveal at most one kind of share of each member; afterwards all shares are deleted.

        Raises:
            RefusedError: if both shares of a member are asked for, shares of a member that is not
                a neighbour, or shares of the member's own masking key; if there are too few
                survivors to hide each other; or if it is not proven that their vectors contain
                enough clients.
        """
        self._require_stage(Stage.UNMASK)
        survivors = wanted.survivors
        dropouts = wanted.dropouts
        both = sorted(survivors & dropouts)
        _require(not both, f"both shares of members {both} are asked for")
        _require(survivors | dropouts <= self.held.keys(), "shares of a stranger are asked for")
        _require(self.place in survivors, f"member {self.place} is asked for its own masking key")
        _require(
            len(survivors) >= self.threshold,
            f"{len(survivors)} survivors are too few for a threshold of {self.threshold}",
        )
        self._require_clients(wanted)
        revealed = RevealedShares(
            seeds={member: self.held[member].seed for member in survivors},
            keys={member: self.held[member].key for member in dropouts},
        )
        self.held = {}
        self.stage = Stage.OVER
        return revealed

    def state(self) -> dict[str, Any]:
        """Return the state as numbers, bytes and lists of them, for `from_state`."""
        return {
            "place": self.place,
            "threshold": self.threshold,
            "private": [self.encryption.private, self.masking.private],
            "stage": int(self.stage),
            "seed": self.seed,
            "neighbours": list(self.keys),
            "public": [key for pair in self.keys.values() for key in _both(pair)],
            "owners": list(self.held),
            "shares": [part for held in self.held.values() for part in (held.seed, held.key)],
            "clients": self.clients,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], rules: Rules) -> Self:
        """Restore a member from `state`, in any process."""
        encryption, masking = map(KeyPair.from_private_key, state["private"])
        public = _in_pairs(state["public"])
        shares = _in_pairs(state["shares"])
        return cls(
            state["place"],
            state["threshold"],
            rules,
            encryption,
            masking,
            Stage(state["stage"]),
            state["seed"],
            {n: PublicKeys(*pair) for n, pair in zip(state["neighbours"], public, strict=True)},
            {owner: Shares(*pair) for owner, pair in zip(state["owners"], shares, strict=True)},
            state["clients"],
        )

    def _require_clients(self, wanted: UnmaskRequest) -> None:
        """Refuse to unmask a sum that may contain fewer clients than the member's rules demand.

        The member can check the numbers of its neighbours only; the sum contains at least these.
        """
        total = self.clients
        for neighbour in sorted(wanted.survivors - {self.place}):
            number = wanted.clients.get(neighbour, 0)
            tag = wanted.tags.get(neighbour, b"")
            key = self._encryption_key(neighbour)
            expected = authentication_tag(key, neighbour, self.place, number)
            _require(
                compare_digest(tag, expected),
                f"the number of clients of member {neighbour} is not its own",
            )
            total += number
        _require(
            total >= self.rules.min_clients,
            f"{total} clients around member {self.place} are too few: the settings of this node "
            f"demand {self.rules.min_clients}",
        )

    def _encryption_key(self, neighbour: int) -> bytes:
        """Return the key shared with a neighbour for shares and authentication tags."""
        return _shared_key(self.encryption, self.keys[neighbour].encryption)

    def _require_stage(self, stage: Stage) -> None:
        _require(
            self.stage == stage,
            f"member {self.place} is asked to {stage.name.lower()}, but next it can "
            f"{self.stage.name.lower()}",
        )

    def _encrypt(self, holder: int, part: Shares) -> bytes:
        text = share_keys_plaintext_concat(self.place, holder, part.seed, part.key)
        return encrypt(self._encryption_key(holder), text)

    def _decrypt(self, sender: int, ciphertext: bytes) -> Shares:
        try:
            plaintext = decrypt(self._encryption_key(sender), ciphertext)
            stated_sender, holder, seed, private = share_keys_plaintext_separate(plaintext)
        except InvalidToken as error:
            raise RefusedError(f"the shares of member {sender} have been changed") from error
        # Both directions use the same key, so the server could send a member's own shares back.
        is_addressed = (stated_sender, holder) == (sender, self.place)
        _require(is_addressed, f"the shares of member {sender} are not meant for {self.place}")
        return Shares(seed, private)


def _shared_key(pair: KeyPair, public: bytes) -> bytes:
    try:
        return pair.shared_key(public)
    except ValueError as error:
        raise RefusedError(f"the public key of a neighbour is invalid: {error}") from error


def _both(pair: PublicKeys) -> tuple[bytes, bytes]:
    return pair.encryption, pair.masking


def _in_pairs(flat: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _require(condition: bool, message: str) -> None:  # noqa: FBT001  # reads like assert
    if not condition:
        raise RefusedError(message)

"""A node's side of the protocol: keeps its secrets, and refuses what would give them away."""

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
    common_mask,
    fresh_seed,
    self_mask,
    split,
    tag,
)
from fedrec_flower.core.errors import TrainingError


class RefusedError(TrainingError):
    """A request that no honest server makes; the member is as it was before."""


class Stage(IntEnum):
    """What a member does next."""

    SHARE = 1
    OPEN = 2
    MASK = 3
    UNMASK = 4
    OVER = 5


@dataclass(frozen=True, slots=True)
class Rules:
    """What a member demands of every session by its own settings, whatever the server asks.

    The server says who the neighbours are, and how many: a member does not know how many nodes take
    part. It is sure of `min_nodes` holders of its shares, itself among them, and not of
    `num_neighbours`. Nothing certifies public keys, so a server that invents members can meet every
    rule.

    Attributes:
        share: of a member and its neighbours, those whose shares make up a secret; above 0.5.
        min_nodes: fewest members whose shares may make up a secret.
        min_clients: fewest clients in the vectors of a member and its surviving neighbours.
    """

    share: float
    min_nodes: int
    min_clients: int

    def threshold(self, holders: int) -> int:
        """How many shares make up a secret that so many members hold, at least."""
        # Of the decimal number that was configured: 0.6 * 5 in floating point may exceed 3.
        return max(ceil(Fraction(str(self.share)) * holders), self.min_nodes)


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of one member's secrets.

    Attributes:
        seed: of its self mask's seed.
        key: of its private masking key.
    """

    seed: bytes
    key: bytes


@dataclass(slots=True)
class Member:
    """One member in one session; each stage is passed once, in order.

    Attributes:
        place: which member it is.
        threshold: how many shares make up a secret, of anyone.
        rules: what it demands of the session.
        encryption: its pair for what others send it.
        masking: its pair for common masks.
        stage: what it does next.
        seed: of its self mask; empty before it shares.
        keys: its neighbours' public keys.
        held: the shares it holds, by whose secrets they are of.
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
    def fresh(cls, place: int, threshold: int, rules: Rules) -> Self:
        """A member with new keys, whose `public` ones it advertises."""
        return cls(place, threshold, rules, KeyPair.fresh(), KeyPair.fresh())

    @property
    def public(self) -> PublicKeys:
        """What it advertises."""
        return PublicKeys(self.encryption.public, self.masking.public)

    def share(self, keys: Mapping[int, PublicKeys]) -> dict[int, bytes]:
        """Split its secrets among itself and its neighbours.

        Args:
            keys: the neighbours' public keys.

        Returns:
            For each neighbour its shares, encrypted.

        Raises:
            RefusedError: if the threshold is below the member's rules, or there are too few
                neighbours, itself among them, one of them twice, or so many that two groups of
                them could each put a secret together.
        """
        self._require_stage(Stage.SHARE)
        holders = sorted({self.place, *keys})
        known = [key for pair in (self.public, *keys.values()) for key in _both(pair)]
        _require(
            self.place not in keys and len(set(known)) == len(known),
            f"member {self.place} is its own neighbour, or two have the same key",
        )
        _require(
            self.threshold <= len(holders) < 2 * self.threshold,
            f"a threshold of {self.threshold} does not protect a secret that {len(holders)} share",
        )
        least = self.rules.threshold(len(holders))
        _require(
            self.threshold >= least,
            f"a threshold of {self.threshold} for {len(holders)} nodes is below the {least} that "
            "the settings of this node demand",
        )
        self.seed, self.keys = fresh_seed(), dict(keys)
        secrets = (self.seed, self.masking.private)
        parts = (split(secret, self.threshold, len(holders)) for secret in secrets)
        shares = dict(zip(holders, map(Shares, *parts), strict=True))
        self.held[self.place] = shares.pop(self.place)
        self.stage = Stage.OPEN
        return {holder: self._encrypted(holder, part) for holder, part in shares.items()}

    def open(self, encrypted: Mapping[int, bytes]) -> None:
        """Take up the shares of those neighbours with whom it will have masks in common.

        Args:
            encrypted: by sender; whoever is missing has dropped out.

        Raises:
            RefusedError: if they are too few, or not from those whose keys it was given.
        """
        self._require_stage(Stage.OPEN)
        _require(encrypted.keys() <= self.keys.keys(), "shares come from a stranger")
        _require(
            len(encrypted) + 1 >= self.threshold,
            f"{len(encrypted)} neighbours shared, too few for a threshold of {self.threshold}",
        )
        opened = {sender: self._decrypted(sender, text) for sender, text in encrypted.items()}
        self.held |= opened
        self.stage = Stage.MASK

    def mask(self, values: Masked, clients: int) -> Contribution:
        """Hide a vector; sums are taken modulo what its unsigned integers can hold.

        Args:
            values: uint32 or uint64 (length,); left unchanged.
            clients: number of clients in the vector.

        Raises:
            RefusedError: if it is not the time.
        """
        self._require_stage(Stage.MASK)
        masked = values + self_mask(self.seed, len(values), values.dtype)
        others = sorted(self.held.keys() - {self.place})
        for other in others:
            agreed = _agreed(self.masking, self.keys[other].masking)
            common = common_mask(agreed, len(values), values.dtype)
            (np.add if self.place < other else np.subtract)(masked, common, out=masked)
        self.stage, self.clients = Stage.UNMASK, clients
        tags = {other: tag(self._common(other), self.place, other, clients) for other in others}
        return Contribution(masked, clients, tags)

    def unmask(self, wanted: UnmaskRequest) -> RevealedShares:
        """Reveal shares, of each member one kind at most; then there is no more to be had.

        Raises:
            RefusedError: if both shares of a member are asked for, shares of a stranger, those of
                its own masking key, or the secrets of survivors that are too few to hide each
                other or do not prove that their vectors hold enough clients.
        """
        self._require_stage(Stage.UNMASK)
        survivors, dropouts = wanted.survivors, wanted.dropouts
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
        self.held, self.stage = {}, Stage.OVER
        return revealed

    def state(self) -> dict[str, Any]:
        """All there is to it, as numbers, bytes and lists of them, for `restored`."""
        return {
            "place": self.place,
            "threshold": self.threshold,
            "private": [self.encryption.private, self.masking.private],
            "stage": int(self.stage),
            "seed": self.seed,
            "neighbours": list(self.keys),
            "public": [key for pair in self.keys.values() for key in _both(pair)],
            "owners": list(self.held),
            "shares": [part for one in self.held.values() for part in (one.seed, one.key)],
            "clients": self.clients,
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any], rules: Rules) -> Self:
        """The member that `state` told of, in whatever process."""
        encryption, masking = map(KeyPair.restored, state["private"])
        public, shares = _in_pairs(state["public"]), _in_pairs(state["shares"])
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
        """Refuse to unmask a sum that may hold fewer clients than the member's rules demand.

        What the member can check are its neighbours' numbers, and the sum holds no fewer.
        """
        total = self.clients
        for other in sorted(wanted.survivors - {self.place}):
            number, code = wanted.clients.get(other, 0), wanted.tags.get(other, b"")
            expected = tag(self._common(other), other, self.place, number)
            _require(
                compare_digest(code, expected),
                f"the number of clients of member {other} is not its own",
            )
            total += number
        _require(
            total >= self.rules.min_clients,
            f"{total} clients around member {self.place} are too few: the settings of this node "
            f"demand {self.rules.min_clients}",
        )

    def _common(self, other: int) -> bytes:
        """The key in common with a neighbour for what the two send each other."""
        return _agreed(self.encryption, self.keys[other].encryption)

    def _require_stage(self, stage: Stage) -> None:
        _require(
            self.stage == stage,
            f"member {self.place} is asked to {stage.name.lower()}, but next it can "
            f"{self.stage.name.lower()}",
        )

    def _encrypted(self, holder: int, part: Shares) -> bytes:
        text = share_keys_plaintext_concat(self.place, holder, part.seed, part.key)
        return encrypt(self._common(holder), text)

    def _decrypted(self, sender: int, ciphertext: bytes) -> Shares:
        try:
            said_sender, holder, seed, private = share_keys_plaintext_separate(
                decrypt(self._common(sender), ciphertext)
            )
        except InvalidToken as error:
            raise RefusedError(f"the shares of member {sender} have been changed") from error
        # Both directions have the same key: a member's own words could be sent back to it.
        addressed = (said_sender, holder) == (sender, self.place)
        _require(addressed, f"the shares of member {sender} are not meant for {self.place}")
        return Shares(seed, private)


def _agreed(ours: KeyPair, theirs: bytes) -> bytes:
    try:
        return ours.agreed(theirs)
    except ValueError as error:
        raise RefusedError(f"a neighbour's public key is none: {error}") from error


def _both(pair: PublicKeys) -> tuple[bytes, bytes]:
    return pair.encryption, pair.masking


def _in_pairs(flat: list[bytes]) -> Iterable[tuple[bytes, bytes]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _require(honest: bool, complaint: str) -> None:  # noqa: FBT001  # reads like assert
    if not honest:
        raise RefusedError(complaint)

"""Cryptographic primitives of the protocol, and the random graph of neighbours.

All cryptography is taken from libraries. From Flower (read at version 1.41; tests check the
properties that the protocol needs):

- `generate_shared_key`: Diffie-Hellman on an elliptic curve, then HKDF-SHA256 without salt or
  purpose. The same two key pairs always agree on the same key, so a member has one pair for
  encryption and another for masks, both new in every session.
- `encrypt`, `decrypt`: Fernet, that is AES-128-CBC with HMAC-SHA256. A modified ciphertext is
  detected. The time of encryption is in clear.
- `create_shares`, `combine_shares`: pads the secret to blocks of 16 bytes (PKCS#7) and shares each
  block in GF(2^128) with pycryptodome, whose coefficients come from the operating system. The
  threshold is not part of a share: too few shares combine to random bytes. A secret of 32 bytes is
  followed by a block of padding only, so random bytes are detected except with probability 2^-128;
  `reconstruct_secret` checks this.

Deliberately not used:

- `pseudo_rand_gen` folds its seed to 32 bits by exclusive or, and seeds NumPy's Mersenne Twister
  with them: all 2^32 masks can be tried, and the largest value is never drawn. Here, masks are the
  keystream of ChaCha20 (`cryptography`) under the whole 256-bit seed.
- `quantize` draws from NumPy's global state and casts to int32, which wraps without an error.
"""

import base64
import hmac
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from secrets import SystemRandom
from typing import Any, Self

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from numpy.typing import DTypeLike, NDArray

SECRET_BYTES = 32  # of a seed and of a private key

_CURVE = ec.SECP256R1()
_NONCE = bytes(16)  # constant, because each seed is used for one stream only

Masked = NDArray[Any]  # uint32 or uint64
Neighbours = Mapping[int, frozenset[int]]  # member -> its neighbours


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A key pair on the curve P-256.

    Attributes:
        private: 32 bytes, the scalar, most significant byte first.
        public: 33 bytes, the compressed point.
    """

    private: bytes
    public: bytes

    @classmethod
    def generate(cls) -> Self:
        """Return a new pair, with randomness from the operating system."""
        return cls._of(ec.generate_private_key(_CURVE))

    @classmethod
    def from_private_key(cls, private: bytes) -> Self:
        """Return the pair of a private key.

        Raises:
            ValueError: if the bytes are not a private key.
        """
        return cls._of(_private_key(private))

    def shared_key(self, public: bytes) -> bytes:
        """Return the shared key with the owner of a public key, in Fernet's base64 form.

        Raises:
            ValueError: if the bytes are not a point of the curve.
        """
        other = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, public)
        return generate_shared_key(_private_key(self.private), other)

    @classmethod
    def _of(cls, key: ec.EllipticCurvePrivateKey) -> Self:
        public = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        return cls(key.private_numbers().private_value.to_bytes(SECRET_BYTES, "big"), public)


def is_public_key(key: bytes) -> bool:
    """Return whether bytes are a valid public key of a `KeyPair`."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, key)
    except ValueError:
        return False
    return True


def random_seed() -> bytes:
    """Return the seed of a self mask, with randomness from the operating system."""
    return os.urandom(SECRET_BYTES)


def self_mask(seed: bytes, length: int, dtype: DTypeLike) -> Masked:
    """Return a member's own mask: (length,) unsigned integers, uniform over their full range."""
    encryptor = Cipher(ChaCha20(seed, _NONCE), mode=None).encryptor()
    little_endian = np.dtype(dtype).newbyteorder("<")  # the same numbers on every machine
    stream = encryptor.update(bytes(length * little_endian.itemsize))
    return np.frombuffer(stream, little_endian).astype(dtype, copy=False)


def pairwise_mask(shared_key: bytes, length: int, dtype: DTypeLike) -> Masked:
    """Return the mask that two members derive from the result of `KeyPair.shared_key`."""
    return self_mask(base64.urlsafe_b64decode(shared_key), length, dtype)


def authentication_tag(shared_key: bytes, sender: int, receiver: int, number: int) -> bytes:
    """Return a code that proves to the receiver who sent a number: HMAC-SHA256, 32 bytes.

    Args:
        shared_key: key of sender and receiver, from `KeyPair.shared_key`.
        sender: place of the member that sends the number.
        receiver: place of the member that checks it.
        number: number of clients.
    """
    return hmac.digest(shared_key, f"clients {sender} {receiver} {number}".encode(), "sha256")


def split_secret(secret: bytes, threshold: int, num_shares: int) -> list[bytes]:
    """Return shares of 52 bytes; any `threshold` of them reconstruct the `SECRET_BYTES`."""
    return create_shares(secret, threshold, num_shares)


def reconstruct_secret(shares: list[bytes]) -> bytes:
    """Return the secret from exactly as many shares as the threshold of `split_secret`.

    Raises:
        ValueError: if they are not shares of one secret.
    """
    secret = combine_shares(shares)
    if len(secret) != SECRET_BYTES:
        raise ValueError("the shares do not belong together")
    return secret


def _private_key(private: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(private, "big"), _CURVE)


def neighbourhoods(num_members: int, num_neighbours: int | None) -> Neighbours:
    """Return a random graph in which all members have the same number of neighbours.

    Source: Bell et al. 2020, section 3. The members are placed on a circle in random order; each is
    linked to the `num_neighbours` nearest ones. The order comes from the operating system's
    generator, so that members cannot predict it.

    Args:
        num_members: number of members; they are named 0, 1, ...
        num_neighbours: number of neighbours of each member, even. All other members if it is None
            or exceeds their number.

    Returns:
        The neighbours of each member.
    """
    members = list(range(num_members))
    if num_neighbours is None or num_neighbours >= num_members - 1:
        return {member: frozenset(members) - {member} for member in members}
    SystemRandom().shuffle(members)
    steps = range(1, num_neighbours // 2 + 1)
    return {
        member: frozenset(
            members[(place + sign * step) % num_members] for step in steps for sign in (1, -1)
        )
        for place, member in enumerate(members)
    }


def well_connected(
    neighbours: Neighbours, present: Collection[int], threshold: int
) -> frozenset[int]:
    """Remove members with too few present neighbours, until all remaining ones have enough.

    Args:
        neighbours: neighbours of every member.
        present: the present members.
        threshold: minimum number of present members among a member and its neighbours.
    """
    remaining = frozenset(present)
    previous = None
    while remaining != previous:
        previous = remaining
        remaining = frozenset(
            member for member in previous if len(neighbours[member] & previous) + 1 >= threshold
        )
    return remaining


def is_connected(neighbours: Neighbours, present: Collection[int]) -> bool:
    """Return whether paths over present members connect all present members."""
    unvisited = set(present)
    queue = [unvisited.pop()] if unvisited else []
    while queue:
        reached = neighbours[queue.pop()] & unvisited
        unvisited -= reached
        queue.extend(reached)
    return not unvisited

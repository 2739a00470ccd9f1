"""The cryptography that the protocol relies on, all of it written by others.

Of Flower (read at version 1.41, tests hold it):

- `generate_shared_key`: Diffie-Hellman on an elliptic curve, then HKDF-SHA256 without salt or
  purpose. The same two key pairs always agree on the same key, so a member has one pair for
  encryption and another for masks, both new in every session.
- `encrypt`, `decrypt`: Fernet, that is AES-128-CBC with HMAC-SHA256: whoever changes a ciphertext
  is found out. It tells the time of encryption in clear.
- `create_shares`, `combine_shares`: pads the secret to blocks of 16 bytes (PKCS#7) and shares each
  in GF(2^128) by pycryptodome, whose coefficients come from the operating system. Combining does
  not know the threshold: from too few shares comes garbage. A secret of 32 bytes is followed by a
  block of nothing but padding, so garbage is told from it but for one chance in 2^128; that is
  what `combined` checks.

Not used, on purpose:

- `pseudo_rand_gen` folds its seed to 32 bits by exclusive or, and feeds them to numpy's Mersenne
  Twister: 2^32 masks can be tried one by one, and it never draws the largest value. Masks here are
  the keystream of ChaCha20 (`cryptography`) under the whole 256-bit seed.
- `quantize` draws from numpy's global state and casts to int32, which wraps without a word.

Who shares masks with whom.
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
_NONCE = bytes(16)  # every seed makes one stream

Masked = NDArray[Any]  # uint32 or uint64


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
    def fresh(cls) -> Self:
        """A new pair, from the operating system's randomness."""
        return cls._of(ec.generate_private_key(_CURVE))

    @classmethod
    def restored(cls, private: bytes) -> Self:
        """The pair of a private key.

        Raises:
            ValueError: if the bytes are no private key.
        """
        return cls._of(_private_key(private))

    def agreed(self, public: bytes) -> bytes:
        """The key in common with the holder of a public key, in Fernet's base64 form.

        Raises:
            ValueError: if the bytes are no point of the curve.
        """
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, public)
        return generate_shared_key(_private_key(self.private), theirs)

    @classmethod
    def _of(cls, key: ec.EllipticCurvePrivateKey) -> Self:
        public = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        return cls(key.private_numbers().private_value.to_bytes(SECRET_BYTES, "big"), public)


def is_public_key(key: bytes) -> bool:
    """Whether bytes are a public key that a `KeyPair` could have."""
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, key)
    except ValueError:
        return False
    return True


def fresh_seed() -> bytes:
    """The seed of a self mask, from the operating system's randomness."""
    return os.urandom(SECRET_BYTES)


def self_mask(seed: bytes, length: int, dtype: DTypeLike) -> Masked:
    """A member's own mask: (length,) unsigned integers, uniform over all of their kind."""
    encryptor = Cipher(ChaCha20(seed, _NONCE), mode=None).encryptor()
    little = np.dtype(dtype).newbyteorder("<")  # the same numbers on every machine
    stream = encryptor.update(bytes(length * little.itemsize))
    return np.frombuffer(stream, little).astype(dtype, copy=False)


def common_mask(agreed: bytes, length: int, dtype: DTypeLike) -> Masked:
    """The mask that two members have in common; `agreed` as `KeyPair.agreed` gives it."""
    return self_mask(base64.urlsafe_b64decode(agreed), length, dtype)


def tag(agreed: bytes, sender: int, receiver: int, number: int) -> bytes:
    """A code by which the receiver knows that a number is the sender's: HMAC-SHA256, 32 bytes.

    Args:
        agreed: the key of the two, as `KeyPair.agreed` gives it.
        sender: place of the member whose number it is.
        receiver: place of the member that checks it.
        number: the number.
    """
    return hmac.digest(agreed, f"clients {sender} {receiver} {number}".encode(), "sha256")


def split(secret: bytes, threshold: int, num_shares: int) -> list[bytes]:
    """Shares of 52 bytes, any `threshold` of which make up a secret of `SECRET_BYTES`."""
    return create_shares(secret, threshold, num_shares)


def combined(shares: list[bytes]) -> bytes:
    """The secret behind exactly as many shares as the threshold it was split with.

    Raises:
        ValueError: if they are not shares of one secret.
    """
    secret = combine_shares(shares)
    if len(secret) != SECRET_BYTES:
        raise ValueError("the shares do not belong together")
    return secret


def _private_key(private: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(private, "big"), _CURVE)


Neighbours = Mapping[int, frozenset[int]]


def neighbourhoods(num_members: int, num_neighbours: int | None) -> Neighbours:
    """A random graph in which every member has as many neighbours.

    Source: Bell et al. 2020, section 3: members in a random order on a circle, each beside the
    `num_neighbours` nearest. The order comes from the operating system's generator: members must
    not be able to foresee it.

    Args:
        num_members: members 0, 1, ...
        num_neighbours: of each, even; None or more than there are: all the others.

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
    """The members that have enough others around them, once those that have not are gone.

    Args:
        neighbours: of every member.
        present: who is still there.
        threshold: how many of a member and its neighbours must be present.
    """
    kept, before = frozenset(present), None
    while kept != before:
        before = kept
        kept = frozenset(m for m in before if len(neighbours[m] & before) + 1 >= threshold)
    return kept


def is_connected(neighbours: Neighbours, present: Collection[int]) -> bool:
    """Whether a path over present members leads from each of them to every other."""
    unseen = set(present)
    ahead = [unseen.pop()] if unseen else []
    while ahead:
        found = neighbours[ahead.pop()] & unseen
        unseen -= found
        ahead.extend(found)
    return not unseen

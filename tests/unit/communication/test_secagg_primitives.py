"""What the protocol relies on does what its docstring says, in Flower's pinned version too."""

import numpy as np
import pytest
from cryptography.fernet import InvalidToken
from flwr.common.secure_aggregation.crypto.symmetric_encryption import decrypt, encrypt
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.communication.secure_aggregation.primitives import (
    SECRET_BYTES,
    KeyPair,
    is_public_key,
    pairwise_mask,
    random_seed,
    reconstruct_secret,
    self_mask,
    split_secret,
)


def test_two_pairs_agree_on_a_key_and_a_third_does_not() -> None:
    one, other, third = (KeyPair.generate() for _ in range(3))
    assert one.shared_key(other.public) == other.shared_key(one.public)
    assert third.shared_key(one.public) != other.shared_key(one.public)


def test_a_pair_is_restored_from_its_private_key() -> None:
    pair = KeyPair.generate()
    assert (len(pair.private), len(pair.public)) == (SECRET_BYTES, 33)
    assert KeyPair.from_private_key(pair.private) == pair
    assert is_public_key(pair.public)
    assert not is_public_key(pair.private)


def test_a_mask_depends_on_every_bit_of_its_seed_and_on_nothing_else() -> None:
    seed = random_seed()
    mask = self_mask(seed, 64, np.uint32)
    assert (mask == self_mask(seed, 64, np.uint32)).all()
    for bit in range(8 * SECRET_BYTES):
        other = bytearray(seed)
        other[bit // 8] ^= 1 << bit % 8
        assert (self_mask(bytes(other), 64, np.uint32) != mask).any()


def test_a_mask_is_the_keystream_of_chacha20() -> None:
    # Bernstein's first block for a key and nonce of zeros.
    assert self_mask(bytes(32), 4, np.uint32).tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"
    long, short = (self_mask(bytes(32), length, np.uint64) for length in (100, 2))
    assert (long[:2] == short).all()


def test_a_mask_uses_the_whole_range() -> None:
    mask = self_mask(random_seed(), 1 << 16, np.uint32).astype(np.float64) / 2**32
    # The mean of n uniform draws is within 5 sigma of 1/2.
    assert abs(mask.mean() - 0.5) < 5 / np.sqrt(12 * 2**16)
    assert mask.min() < 1e-3 < 1 - 1e-3 < mask.max()


def test_a_common_mask_is_that_of_the_key_agreed_on() -> None:
    one, other = KeyPair.generate(), KeyPair.generate()
    masks = [
        pairwise_mask(a.shared_key(b.public), 8, np.uint32) for a, b in ((one, other), (other, one))
    ]
    assert (masks[0] == masks[1]).all()


@given(threshold=st.integers(2, 6), more=st.integers(0, 3), seed=st.integers(0, 99))
def test_any_threshold_of_shares_make_up_the_secret(threshold: int, more: int, seed: int) -> None:
    secret = np.random.default_rng(seed).bytes(SECRET_BYTES)
    shares = split_secret(secret, threshold, threshold + more)
    some = np.random.default_rng(seed).permutation(len(shares))[:threshold]
    assert reconstruct_secret([shares[place] for place in some]) == secret


@pytest.mark.parametrize("last", [b"\x00", b"\x01", b"\x10"], ids=["0", "1", "16"])
def test_a_secret_that_ends_like_padding_is_told_from_it(last: bytes) -> None:
    secret = bytes(SECRET_BYTES - 1) + last
    assert reconstruct_secret(split_secret(secret, 2, 3)[1:]) == secret


def test_too_few_shares_and_those_of_two_secrets_are_told() -> None:
    for _ in range(300):  # Flower alone lets one wrong padding in 256 pass
        shares, others = split_secret(random_seed(), 3, 3), split_secret(random_seed(), 3, 3)
        for wrong in (shares[:2], [*shares[:2], others[2]]):
            with pytest.raises(ValueError, match="shares"):
                reconstruct_secret(wrong)


def test_a_changed_ciphertext_is_found_out() -> None:
    key = KeyPair.generate().shared_key(KeyPair.generate().public)
    changed = bytearray(encrypt(key, b"a share"))
    changed[20] ^= 1
    with pytest.raises(InvalidToken):
        decrypt(key, bytes(changed))


# --- why some of Flower's helpers are not used ----------------------------------------------------


def test_flowers_generator_forgets_all_but_32_bits_of_its_seed() -> None:
    seed = random_seed()
    turned = seed[4:] + seed[:4]  # another seed of 256 bits
    one, other = (pseudo_rand_gen(s, 1 << 16, [(100,)])[0] for s in (seed, turned))
    assert (one == other).all()
    assert (self_mask(seed, 100, np.uint32) != self_mask(turned, 100, np.uint32)).any()


def test_flowers_generator_never_draws_the_largest_value() -> None:
    assert pseudo_rand_gen(bytes(32), 4, [(10_000,)])[0].max() == 2  # of 0, 1, 2, 3


def test_flowers_quantization_draws_from_numpys_global_state() -> None:
    state = np.random.get_state()  # noqa: NPY002  # to see that it is touched
    before = state[1].tobytes(), state[2]  # type: ignore[index]  # a tuple by default
    quantize([np.full(8, 0.3)], 1.0, 8)
    after = np.random.get_state()  # noqa: NPY002  # as above
    assert (after[1].tobytes(), after[2]) != before  # type: ignore[index]  # as above

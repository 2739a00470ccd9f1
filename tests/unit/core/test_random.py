"""Each address has one random stream, and different addresses have different streams."""

import ast
import json
from pathlib import Path
from time import process_time
from zlib import crc32

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chi2

import fedrec_flower
from fedrec_flower.core.random import Secret, below, draw, generator, streams

Address = tuple[int, str, int, int]

SEEDS = st.one_of(st.integers(0, 5), st.integers(0, 2**40))
ROLES = st.sampled_from(["cohort", "negatives", "shuffle", "initial-personal"])
COUNTS = st.integers(0, 2**31)
ADDRESSES = st.tuples(SEEDS, ROLES, COUNTS, COUNTS)


def stream(address: Address) -> list[int]:
    """First 256 bits of the stream of an address; they cannot agree by chance."""
    drawn: list[int] = generator(*address).integers(0, 2**63, 4).tolist()
    return drawn


# Functions with a role as their second argument.
DRAWING = {"generator", "streams", "sample_clients", "_addresses", "_draws"}


def roles_in_the_code() -> set[str]:
    """Every literal role in the package."""
    package = Path(fedrec_flower.__file__).parent
    trees = [ast.parse(file.read_text()) for file in sorted(package.rglob("*.py"))]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    drawing = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in DRAWING]
    roles = [call.args[1] for call in drawing if len(call.args) > 1]
    return {r.value for r in roles if isinstance(r, ast.Constant) and isinstance(r.value, str)}


@given(ADDRESSES)
def test_same_address_gives_the_same_stream(address: Address) -> None:
    assert stream(address) == stream(address)


@given(ADDRESSES, ADDRESSES)
def test_different_addresses_give_different_streams(one: Address, other: Address) -> None:
    assume(one != other)
    assert stream(one) != stream(other)


@given(ADDRESSES, st.integers(0, 3), st.integers(1, 9))
def test_every_part_of_the_address_changes_the_stream(
    address: Address, place: int, by: int
) -> None:
    seed, role, round_, client = address
    changed = [
        (seed + by, role, round_, client),
        (seed, f"{role}{by}", round_, client),
        (seed, role, round_ + by, client),
        (seed, role, round_, client + by),
    ]
    assert stream(changed[place]) != stream(address)


def test_role_hash_is_the_same_in_every_process() -> None:
    # hash() differs: Python salts it differently in every process.
    expected = np.random.default_rng((7, crc32(b"cohort"), 3, 11)).random(5)
    assert generator(7, "cohort", 3, 11).random(5).tolist() == expected.tolist()


def test_roles_of_the_package_do_not_collide() -> None:
    roles = roles_in_the_code()
    assert {"cohort", "evaluation-cohort", "negatives", "shuffle", "evaluation-negatives"} < roles
    assert {"initial-shared", "initial-personal", "partition", "split"} < roles
    assert len({crc32(role.encode()) for role in roles}) == len(roles)


# Roles drawn by clients, from the seed or a secret. tests/equivalence/test_private_randomness.py
# checks that none of them follows from the seed in private runs. All other roles are drawn by the
# server, by the preparation of data, or by the simulation.
OF_CLIENTS = {
    *("compression", "evaluation-negatives", "initial-personal", "input-dropout", "latent-noise"),
    *("negatives", "secure-rounding", "shuffle", "shuffle-users"),
}
OF_OTHERS = {
    *("attack-matching", "attack-separation", "attack-victims", "attackers", "shadow-half"),
    *("shadow-seed", "clusters", "cohort", "evaluation-cohort"),
    *("initial-shared", "label-flip", "paired-bootstrap", "partition", "poisoned-rows", "profile"),
    *("public", "public-negatives", "settle", "split", "targets"),
}


def test_every_role_is_listed_as_client_or_server_role() -> None:
    """Item 1: the server knows no draw of a client."""
    roles = {r for r in roles_in_the_code() if not r.startswith(("benchmark", "synthetic"))}
    assert roles == OF_CLIENTS | OF_OTHERS


def one_stream(address: Address) -> int:
    seed, role, round_, client = address
    return int(streams(seed, role, round_, np.array([client])).start[0])


@given(ADDRESSES, ADDRESSES)
def test_counter_based_streams_depend_on_the_address_only(one: Address, other: Address) -> None:
    assert one_stream(one) == one_stream(one)
    assume(one != other)
    assert one_stream(one) != one_stream(other)


@given(st.lists(COUNTS, min_size=1, max_size=6), SEEDS, ROLES, COUNTS)
def test_stream_of_a_client_is_independent_of_the_other_clients(
    clients: list[int], seed: int, role: str, round_: int
) -> None:
    together = streams(seed, role, round_, np.array(clients)).start.tolist()
    assert together == [one_stream((seed, role, round_, client)) for client in clients]


@given(st.permutations(range(20)))
def test_draws_do_not_depend_on_their_order(order: list[int]) -> None:
    stream = streams(1, "shuffle", 2, np.array([3])).repeat(np.array([20]))
    assert draw(stream, np.array(order)).tolist() == draw(stream, np.arange(20))[order].tolist()


@pytest.mark.parametrize("bound", [2, 7, 64])
@pytest.mark.parametrize("along", ["clients", "counters", "epochs"])
def test_draws_are_uniform_over_clients_counters_and_epochs(bound: int, along: str) -> None:
    size = 20_000
    clients = np.arange(size) if along == "clients" else np.zeros(size, np.int64)
    counter = {"clients": np.zeros(size, np.int64), "counters": np.arange(size)}.get(
        along, np.arange(size) << 36
    )
    drawn = below(draw(streams(0, "negatives", 1, clients), counter), bound)
    expected = size / bound
    times = np.bincount(drawn, minlength=bound)
    assert len(times) == bound
    assert ((times - expected) ** 2 / expected).sum() < chi2.ppf(0.999, bound - 1)


def test_draws_of_neighbouring_clients_and_counters_are_distinct() -> None:
    stream = streams(0, "negatives", 1, np.arange(500)).repeat(np.full(500, 500))
    drawn = draw(stream, np.tile(np.arange(500), 500))
    assert len(np.unique(drawn)) == 500 * 500


# --- secrets ------------------------------------------------------------------------------------

SECRET = Secret(bytes(range(32)))
OTHER = Secret(bytes(range(1, 33)))


def test_seeded_draws_equal_recorded_values() -> None:
    drawn = draw(streams(7, "negatives", 3, np.array([2, 9])), np.array([0, 5]))
    assert drawn.tolist() == [7262300105341722812, 15467194552538414566]
    whole = generator(7, "cohort", 3, 11).integers(0, 2**63, 2)
    assert whole.tolist() == [1801451297938141713, 8678769413294638881]


def beginning(secret: Secret, role: str, round_: int, client: int) -> tuple[int, int]:
    """The first draw of the generator and of the stream at an address."""
    stream = streams(secret, role, round_, np.array([client]))
    first = generator(secret, role, round_, client).integers(0, 2**63)
    return int(first), int(draw(stream, np.array([0]))[0])


@given(ROLES, COUNTS, COUNTS, st.integers(0, 2), st.integers(1, 9))
def test_streams_of_a_secret_are_independent(
    role: str, round_: int, client: int, place: int, by: int
) -> None:
    """Item 1: the server knows no draw of a client."""
    here = (role, round_, client)
    near = [(f"{role}{by}", *here[1:]), (role, round_ + by, client), (*here[:2], client + by)]
    for secret, address in ((SECRET, near[place]), (OTHER, here)):
        pairs = zip(beginning(SECRET, *here), beginning(secret, *address), strict=True)
        assert all(one != other for one, other in pairs)


def test_draws_of_a_secret_are_aes_of_client_and_counter() -> None:
    """Item 1: the server knows no draw of a client."""
    stream = streams(SECRET, "negatives", 4, np.array([5, 6]))
    drawn = draw(stream[:, None], np.arange(3))
    aes = Cipher(AES(SECRET.at("streams", "negatives", 4)), ECB()).encryptor()  # noqa: S305  # one block
    block = (6).to_bytes(8, "little") + (2).to_bytes(8, "little")
    assert drawn[1, 2] == int.from_bytes(aes.update(block)[:8], "little")
    many = draw(streams(SECRET, "x", 0, np.arange(20_000)), np.zeros(20_000, np.int64))
    assert many[17_000] == draw(streams(SECRET, "x", 0, np.array([17_000])), np.array([0]))
    assert len(np.unique(many)) == 20_000
    drawn_below = np.bincount(below(many, 7), minlength=7)
    assert ((drawn_below - 20_000 / 7) ** 2 / (20_000 / 7)).sum() < chi2.ppf(0.999, 6)


def test_draws_of_100000_clients_take_less_than_half_a_second() -> None:
    began = process_time()
    drawn = draw(streams(SECRET, "negatives", 1, np.arange(100_000)), np.zeros(100_000, np.int64))
    assert len(drawn) == 100_000
    assert process_time() - began < 0.5


def test_secret_is_not_printed_or_serialised() -> None:
    """Item 1: the server knows no draw of a client."""
    assert repr(SECRET) == "Secret(...)"
    assert "key" not in repr(streams(SECRET, "negatives", 1, np.arange(2)))
    with pytest.raises(TypeError):
        json.dumps({"seed": SECRET})
    with pytest.raises(ValueError, match="a secret has 32 bytes, not 3"):
        Secret(b"abc")

"""Laws of the seeds: an address is a stream, and no two addresses share one."""

import ast
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chi2

import fedrec_flower
from fedrec_flower.seeding import below, draw, generator, streams

Address = tuple[int, str, int, int]

SEEDS = st.one_of(st.integers(0, 5), st.integers(0, 2**40))
ROLES = st.sampled_from(["cohort", "negatives", "shuffle", "initial-personal"])
COUNTS = st.integers(0, 2**31)
ADDRESSES = st.tuples(SEEDS, ROLES, COUNTS, COUNTS)


def stream(address: Address) -> list[int]:
    """The beginning of the stream at an address: 256 bits, too many to agree by chance."""
    drawn: list[int] = generator(*address).integers(0, 2**63, 4).tolist()
    return drawn


# What takes a role as its second argument.
DRAWING = {"generator", "streams", "sample_clients", "_addresses"}


def roles_in_the_code() -> set[str]:
    """Every text that stands where a role stands."""
    package = Path(fedrec_flower.__file__).parent
    trees = [ast.parse(file.read_text()) for file in sorted(package.rglob("*.py"))]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    drawing = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id in DRAWING]
    roles = [call.args[1] for call in drawing if len(call.args) > 1]
    return {r.value for r in roles if isinstance(r, ast.Constant) and isinstance(r.value, str)}


@given(ADDRESSES)
def test_the_same_address_is_the_same_stream(address: Address) -> None:
    assert stream(address) == stream(address)


@given(ADDRESSES, ADDRESSES)
def test_another_address_is_another_stream(one: Address, other: Address) -> None:
    assume(one != other)
    assert stream(one) != stream(other)


@given(ADDRESSES, st.integers(0, 3), st.integers(1, 9))
def test_any_change_of_the_address_changes_the_stream(
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


def test_the_role_counts_the_same_in_every_process() -> None:
    # hash() would not: Python salts it anew in every process.
    expected = np.random.default_rng((7, crc32(b"cohort"), 3, 11)).random(5)
    assert generator(7, "cohort", 3, 11).random(5).tolist() == expected.tolist()


def test_no_two_roles_of_the_code_base_collide() -> None:
    roles = roles_in_the_code()
    assert {"cohort", "evaluation-cohort", "negatives", "shuffle", "evaluation-negatives"} < roles
    assert {"initial-shared", "initial-personal", "partition", "split"} < roles
    assert len({crc32(role.encode()) for role in roles}) == len(roles)


def one_stream(address: Address) -> int:
    seed, role, round_, client = address
    return int(streams(seed, role, round_, np.array([client])).start[0])


@given(ADDRESSES, ADDRESSES)
def test_counter_based_streams_follow_the_same_laws(one: Address, other: Address) -> None:
    assert one_stream(one) == one_stream(one)
    assume(one != other)
    assert one_stream(one) != one_stream(other)


@given(st.lists(COUNTS, min_size=1, max_size=6), SEEDS, ROLES, COUNTS)
def test_a_clients_stream_does_not_depend_on_who_else_is_asked_for(
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
def test_draws_are_uniform_whichever_way_they_are_taken(bound: int, along: str) -> None:
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


def test_neighbouring_clients_and_counters_share_no_draws() -> None:
    stream = streams(0, "negatives", 1, np.arange(500)).repeat(np.full(500, 500))
    drawn = draw(stream, np.tile(np.arange(500), 500))
    assert len(np.unique(drawn)) == 500 * 500

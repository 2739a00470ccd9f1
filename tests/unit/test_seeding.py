"""Laws of the seeds: an address is a stream, and no two addresses share one."""

import ast
from pathlib import Path
from zlib import crc32

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

import fedrec_flower
from fedrec_flower.seeding import generator

Address = tuple[int, str, int, int]

SEEDS = st.one_of(st.integers(0, 5), st.integers(0, 2**40))
ROLES = st.sampled_from(["cohort", "negatives", "shuffle", "initial-personal"])
COUNTS = st.integers(0, 2**31)
ADDRESSES = st.tuples(SEEDS, ROLES, COUNTS, COUNTS)


def stream(address: Address) -> list[int]:
    """The beginning of the stream at an address: 256 bits, too many to agree by chance."""
    return generator(*address).integers(0, 2**63, 4).tolist()


def roles_in_the_code() -> set[str]:
    """Every text that stands where a generator's role stands."""
    package = Path(fedrec_flower.__file__).parent
    trees = [ast.parse(file.read_text()) for file in sorted(package.rglob("*.py"))]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    drawing = [c for c in calls if isinstance(c.func, ast.Name) and "generator" in c.func.id]
    sampling = [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "_sample"]
    places = [call.args[1] for call in drawing + sampling if len(call.args) > 1]
    return {p.value for p in places if isinstance(p, ast.Constant) and isinstance(p.value, str)}


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
    parts = list(address)
    parts[place] = f"{parts[place]}{by}" if place == 1 else int(parts[place]) + by
    assert stream((int(parts[0]), str(parts[1]), int(parts[2]), int(parts[3]))) != stream(address)


def test_the_role_counts_the_same_in_every_process() -> None:
    # hash() would not: Python salts it anew in every process.
    expected = np.random.default_rng((7, crc32(b"cohort"), 3, 11)).random(5)
    assert generator(7, "cohort", 3, 11).random(5).tolist() == expected.tolist()


def test_no_two_roles_of_the_code_base_collide() -> None:
    roles = roles_in_the_code()
    assert {"cohort", "evaluation-cohort", "negatives", "shuffle", "evaluation-negatives"} < roles
    assert {"initial-shared", "initial-personal", "partition", "split"} < roles
    assert len({crc32(role.encode()) for role in roles}) == len(roles)

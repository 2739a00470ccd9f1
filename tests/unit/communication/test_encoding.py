"""What messages are made of comes back, and costs what it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.communication.compression.encoding import (
    Numbers,
    Subsets,
    frames_of,
    in_numpy_format,
    message,
    message_bytes,
)


def subset(members: list[int], size: int) -> Subsets:
    return Subsets(np.array(members, np.int64), np.array([0, len(members)]), np.array([size]))


@st.composite
def subsets(draw: st.DrawFn) -> tuple[list[int], int]:
    size = draw(st.integers(0, 90) | st.integers(65_530, 65_540) | st.just(10**6))
    members = st.lists(st.integers(0, max(size - 1, 0)), unique=True, max_size=min(size, 40))
    return sorted(draw(members)), size


@given(subsets())
def test_a_subset_comes_back_in_as_many_bytes_as_it_says(drawn: tuple[list[int], int]) -> None:
    members, size = drawn
    part = subset(members, size)
    assert Subsets.read(part.frame(0), size).tolist() == members
    assert part.num_bytes.tolist() == [len(part.frame(0))]


@pytest.mark.parametrize(
    ("count", "size", "num_bytes"),
    [
        (5, 1682, 5 * 2),  # few of them: a code each
        (500, 1682, 211),  # many: 1682 bits
        (5, 65_536, 5 * 2),  # the last size that two bytes count
        (5, 65_537, 5 * 4),
        (0, 1682, 0),
        (8, 8, 1),
    ],
)
def test_a_subset_takes_a_bit_an_element_or_a_code_a_member(
    count: int, size: int, num_bytes: int
) -> None:
    assert len(subset(list(range(count)), size).frame(0)) == num_bytes


@given(st.lists(st.lists(st.integers(-128, 127)), min_size=1, max_size=3))
def test_the_parts_of_a_message_come_back_each_by_itself(stretches: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, stretches)])
    flat = [number for own in stretches for number in own]
    parts = [Numbers(np.array(flat, dtype), offsets) for dtype in (np.int8, np.float32)]
    for place, own in enumerate(stretches):
        sent = message(parts, place)
        small, wide = frames_of(sent)
        assert Numbers.read(small, np.int8).tolist() == own
        assert Numbers.read(wide, np.float32).tolist() == own
        header = len(in_numpy_format(np.zeros(0, np.uint8)))
        assert len(sent) == header + (4 + len(own)) + (4 + 4 * len(own))
        assert message_bytes(parts)[place] == len(sent)

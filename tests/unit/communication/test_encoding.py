"""Parts of compressed messages: round trips and sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.communication.compression.encoding import (
    Numbers,
    Subsets,
    build_message,
    in_numpy_format,
    message_bytes,
    read_frames,
)


def subset(members: list[int], size: int) -> Subsets:
    return Subsets(np.array(members, np.int64), np.array([0, len(members)]), np.array([size]))


@st.composite
def subsets(draw: st.DrawFn) -> tuple[list[int], int]:
    size = draw(st.integers(0, 90) | st.integers(65_530, 65_540) | st.just(10**6))
    members = st.lists(st.integers(0, max(size - 1, 0)), unique=True, max_size=min(size, 40))
    return sorted(draw(members)), size


@given(subsets())
def test_subset_round_trip_and_size(drawn: tuple[list[int], int]) -> None:
    members, size = drawn
    part = subset(members, size)
    assert Subsets.read(part.frame(0), size).tolist() == members
    assert part.num_bytes.tolist() == [len(part.frame(0))]


@pytest.mark.parametrize(
    ("count", "size", "num_bytes"),
    [
        (5, 1682, 5 * 2),  # few elements: one code each
        (500, 1682, 211),  # many elements: 1682 bits
        (5, 65_536, 5 * 2),  # the largest size with two-byte codes
        (5, 65_537, 5 * 4),
        (0, 1682, 0),
        (8, 8, 1),
    ],
)
def test_subset_is_a_bitmap_or_a_list_of_codes_whichever_is_shorter(
    count: int, size: int, num_bytes: int
) -> None:
    assert len(subset(list(range(count)), size).frame(0)) == num_bytes


@given(st.lists(st.lists(st.integers(-128, 127)), min_size=1, max_size=3))
def test_message_parts_round_trip(segments: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, segments)])
    flat = [number for segment in segments for number in segment]
    parts = [Numbers(np.array(flat, dtype), offsets) for dtype in (np.int8, np.float32)]
    for place, segment in enumerate(segments):
        sent = build_message(parts, place)
        small, wide = read_frames(sent)
        assert Numbers.read(small, np.int8).tolist() == segment
        assert Numbers.read(wide, np.float32).tolist() == segment
        header = len(in_numpy_format(np.zeros(0, np.uint8)))
        assert len(sent) == header + (4 + len(segment)) + (4 + 4 * len(segment))
        assert message_bytes(parts)[place] == len(sent)

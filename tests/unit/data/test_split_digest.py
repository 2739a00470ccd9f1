"""Laws of the split's fingerprint: it is the hash of the sorted test triples, as documented."""

from hashlib import sha256

import numpy as np
import pytest

from fedrec_flower.data.interactions import Ids, Interactions, Part, Split
from fedrec_flower.data.splits import base as digest
from fedrec_flower.data.splits.base import split_sha256

TEST, TRAIN = Part.TEST, Part.TRAIN


def interactions(order: list[int], *, timed: bool = True, user_ids: Ids) -> Interactions:
    """Four interactions of two users, in a given file order."""
    return Interactions(
        user=np.array([0, 0, 1, 1], dtype=np.int32)[order],
        item=np.array([0, 1, 0, 1], dtype=np.int32)[order],
        rating=None,
        timestamp=np.array([50, 60, 70, 80], dtype=np.int64)[order] if timed else None,
        user_ids=user_ids,
        item_ids=np.array([9, 10]),
    )


def labels(order: list[int], *parts: Part) -> Split:
    return Split(np.array(parts, dtype=np.int8)[order])


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_the_digest_is_that_of_the_sorted_test_lines(order: list[int]) -> None:
    data = interactions(order, user_ids=np.array([2, 11]))
    split = labels(order, TEST, TEST, TEST, TRAIN)
    lines = b"2\t9\t50\n2\t10\t60\n11\t9\t70\n"
    assert split_sha256(data, split) == sha256(lines).hexdigest()


def test_an_unknown_time_is_empty_and_strings_are_utf8() -> None:
    data = interactions([0, 1, 2, 3], timed=False, user_ids=np.array(["ann", "zoë"]))
    split = labels([0, 1, 2, 3], TEST, TRAIN, TEST, TRAIN)
    assert split_sha256(data, split) == sha256("ann\t9\t\nzoë\t9\t\n".encode()).hexdigest()


def test_another_test_set_has_another_digest() -> None:
    data = interactions([0, 1, 2, 3], user_ids=np.array([2, 11]))
    digests = {
        split_sha256(data, labels([0, 1, 2, 3], *parts))
        for parts in ([TEST, TRAIN, TRAIN, TRAIN], [TRAIN, TEST, TRAIN, TRAIN], [TRAIN] * 4)
    }
    assert len(digests) == 3


def test_the_length_of_a_chunk_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    data = interactions([0, 1, 2, 3], user_ids=np.array([2, 11]))
    split = labels([0, 1, 2, 3], TEST, TEST, TEST, TEST)
    whole = split_sha256(data, split)
    monkeypatch.setattr(digest, "_CHUNK", 3)
    assert split_sha256(data, split) == whole

"""Laws of privacy."""

import numpy as np

from fedrec_flower.aggregation import Updates
from fedrec_flower.privacy import NoPrivacy


def test_no_privacy_is_the_identity() -> None:
    tensors = {"table": np.ones((2, 3), np.float32)}
    updates = Updates(np.array([3]), np.array([5.0]), np.array([0, 2]), np.array([1, 4]), tensors)
    assert NoPrivacy().apply(updates) is updates
    assert updates.tensors["table"].tolist() == [[1.0] * 3] * 2

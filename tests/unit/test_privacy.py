"""Laws of privacy."""

import numpy as np

from fedrec_flower.aggregation import Update
from fedrec_flower.privacy import NoPrivacy


def test_no_privacy_is_the_identity() -> None:
    update = Update(3, 5.0, np.array([1, 4]), {"weight": np.ones((2, 3), np.float32)})
    assert NoPrivacy().apply(update) is update
    assert update.tensors["weight"].tolist() == [[1.0] * 3] * 2

"""Types of arrays and configurations that several rooms share; each has one name and one home."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
IndexArray = NDArray[np.int64]
"""Codes of users, items or clients, places in an array, or counts."""

Tensors = dict[str, Float32Array]
"""Parameter name -> value."""
Sums = dict[str, Float64Array]
"""Parameter or statistic name -> its sum over users or clients."""
Arrays = dict[str, NDArray[Any]]
"""Name -> array of any type: the state of a component, or the content of a message."""
Shapes = Mapping[str, tuple[int, ...]]
"""Parameter name -> shape."""
Config = Mapping[str, Any]
"""A resolved node of the configuration."""

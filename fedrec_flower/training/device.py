"""Where the vectorized engine computes."""

from typing import Literal

import torch

from fedrec_flower.errors import ConfigError

DeviceName = Literal["auto", "cpu", "cuda"]


def find_device(name: DeviceName) -> torch.device:
    """The device of this process that a setting names; "auto" is CUDA where there is one.

    Raises:
        ConfigError: if CUDA is asked for and absent.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "training.device=cuda finds no CUDA device in this process: choose training.device=cpu "
            "or auto (with federation=simulation, federation.num_gpus must be above 0)"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)

"""Nobody loads what they do not use: a worker's memory and a run's start hang on it."""

import subprocess
import sys

import pytest

HEAVY = {
    "pandas", "pyarrow", "scipy", "numba", "matplotlib", "hydra", "omegaconf", "ray",
    "flwr.simulation",
}  # fmt: skip
NEEDED = {
    "fedrec_flower.federation.client.app": set[str](),  # a node that waits for its first message
    "fedrec_flower.training.compiled": set[str](),  # a server that checks the settings
    "fedrec_flower.federation.transport": set[str](),  # whoever needs no simulation
    "fedrec_flower.cli.main": {"hydra", "omegaconf"},  # --help
    "fedrec_flower.training.kernels": {"numba", "scipy"},  # whoever trains; numba takes scipy
}


@pytest.mark.parametrize("module", NEEDED)
def test_a_module_loads_of_what_is_heavy_only_what_it_needs(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == NEEDED[module]

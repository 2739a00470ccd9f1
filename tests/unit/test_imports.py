"""Modules import heavy packages only if they use them, to save memory and start-up time."""

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
    "fedrec_flower.federation.transport": set[str](),  # runs without a simulation
    "fedrec_flower.cli.main": {"hydra", "omegaconf"},  # --help
    "fedrec_flower.training.kernels": {"numba", "scipy"},  # training; numba imports scipy
}


@pytest.mark.parametrize("module", NEEDED)
def test_import_loads_only_the_heavy_modules_it_needs(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == NEEDED[module]

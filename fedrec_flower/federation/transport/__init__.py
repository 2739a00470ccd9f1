"""Engines: what carries messages between strategy and nodes.

With the same seed and the same number of nodes, a run in this process and a simulated one give the
same results to the byte. Another number of nodes adds the same updates in another order, so
results differ by rounding: metrics by less than 5e-7 in our tests.
"""

from typing import TYPE_CHECKING, Any

from fedrec_flower.federation.transport.base import Engine, federate
from fedrec_flower.federation.transport.deployment import Deployment
from fedrec_flower.federation.transport.in_process import InProcess, InProcessGrid

if TYPE_CHECKING:
    from fedrec_flower.federation.transport.simulation import Simulation

__all__ = ["Deployment", "Engine", "InProcess", "InProcessGrid", "Simulation", "federate"]


def __getattr__(name: str) -> Any:
    """Import the simulation for those who simulate: Flower's brings Ray and a database along."""
    if name == "Simulation":
        from fedrec_flower.federation.transport.simulation import Simulation

        return Simulation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

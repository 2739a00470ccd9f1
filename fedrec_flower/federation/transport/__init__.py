"""Transports: they carry the messages between the server and the nodes.

With the same seed and the same number of nodes, an in-process run and a simulated run give the same
results to the byte. With another number of nodes, the same updates are added in another order, so
results differ by rounding: metrics by less than 5e-7 in our tests.
"""

from typing import TYPE_CHECKING, Any

from fedrec_flower.federation.transport.base import Transport, federate
from fedrec_flower.federation.transport.deployment import Deployment
from fedrec_flower.federation.transport.in_process import InProcess, InProcessGrid

if TYPE_CHECKING:
    from fedrec_flower.federation.transport.simulation import Simulation

__all__ = ["Deployment", "InProcess", "InProcessGrid", "Simulation", "Transport", "federate"]


def __getattr__(name: str) -> Any:
    """Import the simulation on first use, because Flower's imports Ray and a database."""
    if name == "Simulation":
        from fedrec_flower.federation.transport.simulation import Simulation

        return Simulation
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

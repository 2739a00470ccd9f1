"""What goes wrong in the world: clients that are absent, late, broken or hostile."""

from fedrec_flower.faults.faults import Faults
from fedrec_flower.faults.latency import latency
from fedrec_flower.faults.none import NoFaults, Odd

__all__ = ["Faults", "NoFaults", "Odd", "latency"]

"""Engines: what carries messages between strategy and nodes."""

from fedrec_flower.federation.base import Engine, federate
from fedrec_flower.federation.in_process import InProcess, InProcessGrid
from fedrec_flower.federation.simulation import Simulation

__all__ = ["Engine", "InProcess", "InProcessGrid", "Simulation", "federate"]

"""Attacks on a federation: clients that promote items, and servers that are curious."""

from fedrec_flower.attacks.none import NoAttack

__all__ = ["NoAttack"]

"""Attacks on a federation: clients that promote items, and servers that are curious.

What an attack achieves is a lower bound of what an attacker can: a stronger one may achieve more.
"""

from fedrec_flower.attacks.explicit_boosting import ExplicitBoosting
from fedrec_flower.attacks.fedrecattack import FedRecAttack
from fedrec_flower.attacks.interaction_inference import InteractionInference
from fedrec_flower.attacks.membership_inference import MembershipInference
from fedrec_flower.attacks.none import LOWER_BOUND, NoAttack
from fedrec_flower.attacks.poisoning import Poisoning
from fedrec_flower.attacks.profiles import Profiles

__all__ = [
    "LOWER_BOUND",
    "ExplicitBoosting",
    "FedRecAttack",
    "InteractionInference",
    "MembershipInference",
    "NoAttack",
    "Poisoning",
    "Profiles",
]

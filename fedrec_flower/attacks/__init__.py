"""Attacks on a federation: clients that promote items, and servers that are curious."""

from fedrec_flower.attacks.explicit_boosting import ExplicitBoosting
from fedrec_flower.attacks.fedrecattack import FedRecAttack
from fedrec_flower.attacks.interaction_inference import InteractionInference
from fedrec_flower.attacks.membership_inference import MembershipInference
from fedrec_flower.attacks.none import NoAttack
from fedrec_flower.attacks.poisoning import Poisoning
from fedrec_flower.attacks.profiles import Profiles

__all__ = [
    "ExplicitBoosting",
    "FedRecAttack",
    "InteractionInference",
    "MembershipInference",
    "NoAttack",
    "Poisoning",
    "Profiles",
]

"""Threats: faults, Byzantine clients, poisoning and inference attacks."""

from fedrec_flower.threats.base import Attack, InferenceAttack, NoAttack
from fedrec_flower.threats.explicit_boosting import ExplicitBoosting
from fedrec_flower.threats.fake_profiles import Profiles
from fedrec_flower.threats.faults import FaultModel, Faults, NoFaults
from fedrec_flower.threats.fedrecattack import FedRecAttack
from fedrec_flower.threats.interaction_inference import InteractionInference
from fedrec_flower.threats.membership_inference import MembershipInference
from fedrec_flower.threats.poisoning import Poisoning

__all__ = [
    "Attack",
    "ExplicitBoosting",
    "FaultModel",
    "Faults",
    "FedRecAttack",
    "InferenceAttack",
    "InteractionInference",
    "MembershipInference",
    "NoAttack",
    "NoFaults",
    "Poisoning",
    "Profiles",
]

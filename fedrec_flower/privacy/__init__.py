"""Privacy as a step applied to each client's update before anything is summed.

Two sides: what a client does (`NoPrivacy` and those like it) and what the server does (`Curator`).
"""

from fedrec_flower.privacy.accounting import epsilon_of, noise_multiplier_for
from fedrec_flower.privacy.central import CentralDP
from fedrec_flower.privacy.chance import Chance
from fedrec_flower.privacy.circumstances import Circumstances, Published, Way
from fedrec_flower.privacy.clipping import clipped, norms
from fedrec_flower.privacy.curator import Curator
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.none import NoPrivacy
from fedrec_flower.privacy.pseudo_items import PseudoItems
from fedrec_flower.privacy.randomized_response import RandomizedResponse

__all__ = [
    "CentralDP",
    "Chance",
    "Circumstances",
    "Curator",
    "LocalDP",
    "NoPrivacy",
    "PseudoItems",
    "Published",
    "RandomizedResponse",
    "Way",
    "clipped",
    "epsilon_of",
    "noise_multiplier_for",
    "norms",
]

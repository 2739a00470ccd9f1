"""Privacy mechanisms: steps applied to client updates before aggregation."""

from fedrec_flower.privacy.central import CentralDP
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.mechanism import NoPrivacy, PrivacyMechanism, ServerMechanism
from fedrec_flower.privacy.pseudo_items import PseudoItems
from fedrec_flower.privacy.randomized_response import RandomizedResponse

__all__ = [
    "CentralDP",
    "LocalDP",
    "NoPrivacy",
    "PrivacyMechanism",
    "PseudoItems",
    "RandomizedResponse",
    "ServerMechanism",
]

"""Privacy mechanisms: steps applied to client updates before aggregation."""

from fedrec_flower.privacy.central import CentralDP
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.mechanism import Curator, NoPrivacy
from fedrec_flower.privacy.pseudo_items import PseudoItems
from fedrec_flower.privacy.randomized_response import RandomizedResponse

__all__ = ["CentralDP", "Curator", "LocalDP", "NoPrivacy", "PseudoItems", "RandomizedResponse"]

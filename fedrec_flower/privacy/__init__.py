"""Privacy as a step applied to each client's update before anything is summed."""

from fedrec_flower.privacy.none import NoPrivacy

__all__ = ["NoPrivacy"]

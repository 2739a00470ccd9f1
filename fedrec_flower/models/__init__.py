"""PyTorch recommenders: which tensors are shared, which stay with the client."""

from fedrec_flower.models.base import Recommender
from fedrec_flower.models.mf import MF
from fedrec_flower.models.ncf import NCF

__all__ = ["MF", "NCF", "Recommender"]

"""The clients' side: `NumPyClient`s, their node, and what it keeps on its own disk."""

from fedrec_flower.client.cohort_client import CohortClient, RecommenderClient
from fedrec_flower.client.node import Node, open_node
from fedrec_flower.client.store import ClientStore

__all__ = ["ClientStore", "CohortClient", "Node", "RecommenderClient", "open_node"]

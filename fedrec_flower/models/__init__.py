"""PyTorch recommenders. Each declares which parameters are shared and which are personal."""

from fedrec_flower.models.autoencoder import Autoencoder
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.models.colr import CoLR
from fedrec_flower.models.ease import EASE
from fedrec_flower.models.fedrap import FedRAP
from fedrec_flower.models.fedrecon import FedRecon
from fedrec_flower.models.gru4rec import GRU4Rec
from fedrec_flower.models.hybrid import Hybrid
from fedrec_flower.models.ials import IALS
from fedrec_flower.models.itemknn import ItemKNN
from fedrec_flower.models.lightgcn import LightGCN
from fedrec_flower.models.mf import MF
from fedrec_flower.models.multvae import MultVAE
from fedrec_flower.models.ncf import NCF
from fedrec_flower.models.pfedrec import GPFedRec, PFedRec
from fedrec_flower.models.popularity import Popularity
from fedrec_flower.models.random import RandomScores
from fedrec_flower.models.sasrec import SASRec
from fedrec_flower.models.two_tower import TwoTower

__all__ = [
    "EASE",
    "IALS",
    "MF",
    "NCF",
    "Autoencoder",
    "ClosedFormRecommender",
    "CoLR",
    "FedRAP",
    "FedRecon",
    "GPFedRec",
    "GRU4Rec",
    "Hybrid",
    "ItemKNN",
    "LightGCN",
    "MultVAE",
    "PFedRec",
    "Popularity",
    "RandomScores",
    "Recommender",
    "SASRec",
    "TwoTower",
]

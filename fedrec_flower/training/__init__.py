"""Local training: samples, losses, and the engines that train a cohort of clients."""

from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.correction import CONTROL, Guide
from fedrec_flower.training.engine import Engine, Trained
from fedrec_flower.training.engines import check_engine, choose_engine
from fedrec_flower.training.settings import LocalTraining
from fedrec_flower.training.versions import Versions
from fedrec_flower.training.work import Touched

__all__ = [
    "CONTROL",
    "Cohort",
    "Engine",
    "Guide",
    "LocalTraining",
    "Touched",
    "Trained",
    "Versions",
    "check_engine",
    "choose_engine",
]

"""Local training of many clients: sequential, vectorized or compiled, with equal results."""

from fedrec_flower.training.batches import Touched
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.engine import Engine, Trained
from fedrec_flower.training.factory import check_engine, choose_engine
from fedrec_flower.training.gradient_correction import CONTROL, Guide
from fedrec_flower.training.model_versions import Versions

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

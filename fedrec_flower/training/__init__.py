"""Local training of many clients: sequential, vectorized or compiled, with equal results."""

from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.factory import check_trainer, choose_trainer
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX, GradientCorrection
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import LocalTrainer, Trained

__all__ = [
    "CONTROL_VARIATE_PREFIX",
    "ActiveRows",
    "Cohort",
    "GradientCorrection",
    "LocalTrainer",
    "LocalTraining",
    "Trained",
    "Versions",
    "check_trainer",
    "choose_trainer",
]

"""Local training: samples, losses, and the engines that train a cohort of clients."""

from fedrec_flower.training.samples import Samples, draw_samples
from fedrec_flower.training.sequential import SequentialEngine
from fedrec_flower.training.settings import LocalResult, LocalTraining

__all__ = ["LocalResult", "LocalTraining", "Samples", "SequentialEngine", "draw_samples"]

"""Which engine trains which model."""

from typing import Any

from fedrec_flower.models import Recommender
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.settings import LocalTraining


def choose_engine(model: Recommender, training: LocalTraining, **rest: Any) -> Engine:
    """The engine that the settings ask for; factor models with SGD have a compiled one.

    Args:
        model: the recommender.
        training: how a client trains.
        rest: the other arguments of `Engine`.
    """
    if training.engine == "sequential":
        from fedrec_flower.training.sequential import SequentialEngine

        return SequentialEngine(model, training, **rest)
    if model.factors() and training.optimizer == "sgd":
        from fedrec_flower.training.compiled import CompiledEngine

        return CompiledEngine(model, training, **rest)
    from fedrec_flower.training.vectorized import VectorizedEngine

    return VectorizedEngine(model, training, **rest)

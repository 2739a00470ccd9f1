"""Which engine trains which model."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, vmap

from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.engine import Engine

_LOG = logging.getLogger(__name__)


def choose_engine(
    model: Recommender, training: LocalTraining, look_ahead: float | None = None, **rest: Any
) -> Engine:
    """The engine that the settings ask for, or the sequential one where the model needs it.

    Args:
        model: the recommender.
        training: how a client trains.
        look_ahead: see `Engine`; the compiled loop cannot.
        rest: the other arguments of `Engine`.
    """
    rest |= {"look_ahead": look_ahead}
    if training.engine == "vectorized" and look_ahead is None and _compiles(model, training):
        from fedrec_flower.training.compiled import CompiledEngine

        return CompiledEngine(model, training, **rest)
    if training.engine == "vectorized" and why_not_vectorized(model) is None:
        from fedrec_flower.training.vectorized import VectorizedEngine

        return VectorizedEngine(model, training, **rest)
    from fedrec_flower.training.sequential import SequentialEngine

    return SequentialEngine(model, training, **rest)


def _compiles(model: Recommender, training: LocalTraining) -> bool:
    """Whether the compiled loop can: factors, learnt at once, SGD on a CPU, items or pairs."""
    at_once = not model.frozen and all(
        model.phases(e) == Recommender.phases(model, e) for e in range(training.local_epochs)
    )
    plain = training.optimizer == "sgd" and training.device != "cuda" and training.loss != "softmax"
    return plain and at_once and model.factors() is not None


def check_engine(
    model: Recommender, training: LocalTraining, largest: ClientData, **rest: Any
) -> None:
    """Say so if the model must be trained in another way than asked, or cannot be at all.

    Args:
        model: the recommender.
        training: how a client trains.
        largest: the client with the most training interactions.
        rest: the other arguments of `Engine`.

    Raises:
        ConfigError: if the largest client does not fit the memory budget, or CUDA is asked for
            and absent.
    """
    reason = why_not_vectorized(model)
    if training.engine == "vectorized" and reason:
        name = type(model).__name__
        _LOG.warning("%s cannot be vectorized (%s): training one by one on a CPU", name, reason)
    for _ in choose_engine(model, training, **rest).chunks([largest]):
        pass


def why_not_vectorized(model: Recommender) -> str | None:
    """Why `torch.func.vmap` cannot run the model's `forward`; None if it can.

    A `forward` that branches on the values of tensors, or changes them in place, is one client's
    business at a time.
    """
    tables = model.user_rows | model.item_rows
    clients, samples = 2, 3
    parameters = {
        name: torch.zeros(clients, *((samples, *p.shape[1:]) if name in tables else p.shape))
        for name, p in model.named_parameters()
    }

    rows = torch.arange(samples)

    def forward(own: dict[str, torch.Tensor], read: dict[str, torch.Tensor]) -> torch.Tensor:
        reading = (History(**read),) if read else ()
        scores: torch.Tensor = functional_call(model, own, (torch.zeros_like(rows), rows, *reading))
        return scores

    read = {}
    if isinstance(model, HistoryRecommender):
        one = model.whole(Columns(np.array([0, samples]), rows.numpy(), None), samples)
        one = replace(one, state=rows if model.window else None)
        read = {name: tensor.expand(clients, -1) for name, tensor in one.tensors().items()}
    try:
        vmap(forward)(parameters, read)
    except (RuntimeError, ValueError) as error:
        return str(error).partition("\n")[0]
    return None

"""Chooses the trainer for a model and its settings."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, vmap

from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.models.abilities import AlternatingUpdates, bilinear_form
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.trainer import LocalTrainer

_LOG = logging.getLogger(__name__)


def choose_trainer(
    model: Recommender, training: LocalTraining, maml_step: float | None = None, **rest: Any
) -> LocalTrainer:
    """Build the trainer that the settings name, or the sequential one if the model needs it.

    Args:
        model: the recommender.
        training: how a client trains.
        maml_step: see `LocalTrainer`; the compiled loop does not support it.
        rest: the other arguments of `LocalTrainer`.
    """
    rest |= {"maml_step": maml_step}
    if training.engine == "vectorized" and maml_step is None and _compiles(model, training):
        from fedrec_flower.training.compiled import CompiledTrainer

        return CompiledTrainer(model, training, **rest)
    if training.engine == "vectorized" and why_not_vectorized(model) is None:
        from fedrec_flower.training.vectorized import VectorizedTrainer

        return VectorizedTrainer(model, training, **rest)
    from fedrec_flower.training.sequential import SequentialTrainer

    return SequentialTrainer(model, training, **rest)


def _compiles(model: Recommender, training: LocalTraining) -> bool:
    """Whether the compiled loop supports the model and the settings.

    It needs a model of factors whose parameters are all trained in every step, and SGD on a CPU.
    """
    trains_all = not model.frozen and not isinstance(model, AlternatingUpdates)
    supported = training.optimizer == "sgd" and training.device != "cuda"
    return supported and trains_all and bilinear_form(model) is not None


def check_trainer(
    model: Recommender, training: LocalTraining, largest: ClientData, **rest: Any
) -> None:
    """Check that the model can be trained; warn if it needs another trainer than configured.

    Args:
        model: the recommender.
        training: how a client trains.
        largest: the client with the most training interactions.
        rest: the other arguments of `LocalTrainer`.

    Raises:
        ConfigError: if the largest client does not fit the memory budget, or CUDA is requested
            and absent.
    """
    reason = why_not_vectorized(model)
    if training.engine == "vectorized" and reason:
        name = type(model).__name__
        _LOG.warning("%s cannot be vectorized (%s): training one by one on a CPU", name, reason)
    for _ in choose_trainer(model, training, **rest).chunks([largest]):
        pass


def why_not_vectorized(model: Recommender) -> str | None:
    """Why `torch.func.vmap` cannot run the model's `forward`; None if it can.

    `vmap` supports no `forward` that branches on values of tensors or changes them in place.
    """
    tables = model.user_rows | model.item_rows
    num_clients, num_samples = 2, 3
    parameters = {
        name: torch.zeros(
            num_clients, *((num_samples, *p.shape[1:]) if name in tables else p.shape)
        )
        for name, p in model.named_parameters()
    }
    rows = torch.arange(num_samples)

    def forward(
        of_client: dict[str, torch.Tensor], history: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        users = torch.zeros_like(rows)
        inputs = (users, rows, History(**history)) if history else (users, rows)
        scores: torch.Tensor = functional_call(model, of_client, inputs)
        return scores

    histories = {}
    if isinstance(model, HistoryRecommender):
        one = model.full_history(
            Columns(np.array([0, num_samples]), rows.numpy(), None), num_samples
        )
        one = replace(one, state=rows if model.window else None)
        histories = {n: tensor.expand(num_clients, -1) for n, tensor in one.tensors().items()}
    try:
        vmap(forward)(parameters, histories)
    except (RuntimeError, ValueError) as error:
        return str(error).partition("\n")[0]
    return None

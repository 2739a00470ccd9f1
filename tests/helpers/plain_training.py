"""A plain reference of one client's local training, on whole tables."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.abilities import SideInformation
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.models.multvae import MultVAE
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.negative_sampling import Sampler, Samples


def train_plainly(
    model: Recommender,
    data: ClientData,
    training: LocalTraining,
    round_: int,
    *,
    num_items: int,
    seed: int,
) -> float:
    """Train whole tables in an ordinary PyTorch loop; only the draws come from the package.

    Args:
        model: holds every user and item; changes in place.
        data: the client.
        training: how it trains.
        round_: the round.
        num_items: size of the catalogue.
        seed: the experiment's seed.

    Returns:
        The mean loss over all samples, as they were met.
    """
    optimizer = _optimizer(model, training)
    task: Literal["rating", "ranking"] = "rating" if training.loss == "mse" else "ranking"
    width = {"bpr": 2, "softmax": 1 + training.num_negatives}.get(training.loss, 1)
    sampler = Sampler(task, width, training.num_negatives, num_items, seed, training.batch_size)
    cohort = Cohort.gather([data], spare_held_out=False)
    if isinstance(model, SideInformation):
        sizes, share = np.array([data.num_users]), 1 - model.history_dropout
        kept = sampler.dropout_mask(cohort, sizes, round_, 0, share)
        model.load(model.side_information(data.attributes, data.train.mask(kept), None))
    losses: list[float] = []
    for epoch in range(training.local_epochs):
        reads = isinstance(model, HistoryRecommender)
        samples = sampler.draw(cohort, round_, epoch, in_order=True, by_user=reads)
        history = None
        if isinstance(model, HistoryRecommender):
            history = _history(model, data, cohort, sampler, round_, epoch)
        columns = [
            torch.from_numpy(samples.user),
            torch.from_numpy(samples.item),
            torch.from_numpy(samples.target),
        ]
        size = training.batch_size or max(len(samples), 1)
        for start in range(0, len(samples), size):
            user, item, target = (column[start : start + size] for column in columns)
            optimizer.zero_grad()
            score = _scorer(model, history, data, samples, slice(start, start + size))
            loss = _loss(score, training.loss, user, item, target)
            if isinstance(model, MultVAE) and history is not None:
                loss = loss + _divergence(model, history, user)
            torch.autograd.backward(loss)
            optimizer.step()
            losses += [loss.item()] * len(user)
    return float(np.mean(losses)) if losses else 0.0


def _optimizer(model: Recommender, training: LocalTraining) -> torch.optim.Optimizer:
    rows = model.user_rows | model.item_rows
    tables = [value for name, value in model.named_parameters() if name in rows]
    dense = [value for name, value in model.named_parameters() if name not in rows]
    groups = [
        {"params": tables, "lr": training.learning_rate, "weight_decay": training.weight_decay},
        {"params": dense, "lr": training.dense_learning_rate},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.Adam(groups) if training.optimizer == "adam" else torch.optim.SGD(groups)


def _history(
    model: HistoryRecommender,
    data: ClientData,
    cohort: Cohort,
    sampler: Sampler,
    round_: int,
    epoch: int,
) -> History:
    """Return the histories of a local epoch: the training interactions without dropped ones."""
    whole = model.full_history(data.train, sampler.num_items)
    sizes, share = np.array([len(whole.item)]), 1 - model.input_dropout
    kept = sampler.dropout_mask(cohort, sizes, round_, epoch, share)
    drawn = sampler.noise(cohort, round_, epoch, model.noise_dim)
    noise = None if drawn is None else torch.from_numpy(drawn)
    return replace(whole, weight=whole.weight * torch.from_numpy(kept), noise=noise)


def _divergence(model: MultVAE, history: History, user: Tensor) -> Tensor:
    """Return the variational term of a batch's mean loss, user by user."""
    added = []
    for row in user.tolist():
        own = (history.user == row) & (history.weight > 0)
        items = history.item[own]
        scale = (model.noise_dim / max(len(items), 1)) ** 0.5
        mean = model.mean_embedding.weight[items].sum(0) * scale + model.mean_bias
        spread = model.spread_embedding.weight[items].sum(0) * scale + model.spread_bias
        latent = Normal(mean, torch.exp(spread / 2))
        apart = kl_divergence(latent, Normal(torch.zeros_like(mean), torch.ones_like(mean))).sum()
        added.append(model.beta * apart / max(len(items) / (1 - model.input_dropout), 1.0))
    return torch.stack(added).mean()


def _scorer(
    model: Recommender, history: History | None, data: ClientData, samples: Samples, batch: slice
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the scores of a batch; items after a sample's item are not used."""
    if not isinstance(model, HistoryRecommender) or history is None:
        return model
    if model.window and samples.context is not None:
        user, context = samples.user[batch], samples.context[batch]
        later = np.diff(data.train.offsets)[user] - context
        state = np.where(context == 0, -1, history.last.numpy()[user] - later)
        history = replace(history, state=torch.from_numpy(state))
    return partial(model, history=history)


def _loss(
    score: Callable[[Tensor, Tensor], Tensor], kind: str, user: Tensor, item: Tensor, target: Tensor
) -> Tensor:
    """Return the mean loss of a batch, by another formula than the package's."""
    if kind == "bpr":
        liked, other = score(user, item[:, 0]), score(user, item[:, 1])
        return torch.mean(-functional.logsigmoid(liked - other))
    if kind == "softmax":
        lists = torch.stack([score(user, column) for column in item.T], dim=1)
        return functional.cross_entropy(lists, torch.zeros(len(user), dtype=torch.int64))
    scores = score(user, item[:, 0])
    if kind == "bce":
        return functional.binary_cross_entropy(torch.sigmoid(scores), target)
    return torch.mean((scores - target) ** 2)

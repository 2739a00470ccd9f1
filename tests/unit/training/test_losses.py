"""Losses by hand."""

from math import exp, log

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import Tensor

from fedrec_flower.training.losses import LOSSES, bce, bpr, mse, softmax

WIDTH = {"bpr": 2, "softmax": 2}


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def sigmoid(score: float) -> float:
    return 1 / (1 + exp(-score))


def test_bce_is_the_negative_log_probability_of_the_label() -> None:
    losses = bce(column(2.0, -1.0, 0.5), torch.tensor([1.0, 0.0, 0.0]))
    expected = [-log(sigmoid(2.0)), -log(1 - sigmoid(-1.0)), -log(1 - sigmoid(0.5))]
    assert_allclose(losses, expected, rtol=1e-6)


def test_bce_of_score_zero_is_log_two() -> None:
    assert_allclose(bce(column(0.0, 0.0), torch.tensor([1.0, 0.0])), log(2), rtol=1e-6)


def test_bpr_is_the_negative_log_probability_of_the_order() -> None:
    losses = bpr(torch.tensor([[3.0, 1.0], [0.0, 2.0]]), torch.ones(2))
    assert_allclose(losses, [-log(sigmoid(3.0 - 1.0)), -log(sigmoid(0.0 - 2.0))], rtol=1e-6)


def test_bpr_depends_on_the_score_difference_only() -> None:
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    assert bpr(scores, torch.ones(2)).tolist() == bpr(scores + 5, torch.ones(2)).tolist()


def test_mse_is_the_squared_error() -> None:
    losses = mse(column(3.0, 1.0), torch.tensor([5.0, 0.5]))
    assert losses.tolist() == [(3 - 5) ** 2, (1 - 0.5) ** 2]


def test_softmax_is_the_negative_log_probability_of_the_first_item() -> None:
    losses = softmax(torch.tensor([[2.0, 1.0, -1.0]]), torch.ones(1))
    assert_allclose(losses, -log(exp(2) / (exp(2) + exp(1) + exp(-1))), rtol=1e-6)


def test_softmax_of_two_items_is_bpr() -> None:
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0], [-50.0, 50.0]])
    assert_allclose(softmax(scores, torch.ones(3)), bpr(scores, torch.ones(3)), rtol=1e-6)


@pytest.mark.parametrize("name", ["bce", "bpr", "softmax"])
def test_loss_of_extreme_scores_is_finite(name: str) -> None:
    scores = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])[:, : WIDTH.get(name, 1)]
    losses = LOSSES[name](scores, torch.tensor([0.0, 1.0])).numpy()
    assert np.isfinite(losses).all()
    assert losses.max() >= 1e4


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_loss_of_a_sample_does_not_depend_on_other_samples(name: str) -> None:
    scores = torch.tensor([[0.3, -0.2], [1.5, 0.1], [-2.0, 0.4]])[
        :, : 1 + (name in {"bpr", "softmax"})
    ]
    target = torch.tensor([1.0, 0.0, 1.0])
    together = LOSSES[name](scores, target)
    alone = [LOSSES[name](scores[i : i + 1], target[i : i + 1]).item() for i in range(3)]
    assert_allclose(together, alone, rtol=1e-6)

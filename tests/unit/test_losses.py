"""Losses by arithmetic."""

from math import exp, inf, log

import pytest
import torch
from torch import Tensor

from fedrec_flower.training.losses import LOSSES, bce, bpr, mse


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def sigmoid(score: float) -> float:
    return 1 / (1 + exp(-score))


def test_bce_is_the_mean_surprise_at_the_labels() -> None:
    expected = (-log(sigmoid(2.0)) - log(1 - sigmoid(-1.0)) - log(1 - sigmoid(0.5))) / 3
    loss = bce(column(2.0, -1.0, 0.5), torch.tensor([1.0, 0.0, 0.0]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_bce_of_a_model_that_knows_nothing_is_one_bit() -> None:
    assert bce(column(0.0, 0.0), torch.tensor([1.0, 0.0])).item() == pytest.approx(log(2))


def test_bpr_is_the_mean_surprise_at_the_order_of_the_pairs() -> None:
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    expected = (-log(sigmoid(3.0 - 1.0)) - log(sigmoid(0.0 - 2.0))) / 2
    assert bpr(scores, torch.ones(2)).item() == pytest.approx(expected, rel=1e-6)


def test_bpr_sees_only_differences() -> None:
    scores = torch.tensor([[3.0, 1.0], [0.0, 2.0]])
    assert bpr(scores, torch.ones(2)).item() == bpr(scores + 5, torch.ones(2)).item()


def test_mse_is_the_mean_of_the_squared_errors() -> None:
    loss = mse(column(3.0, 1.0), torch.tensor([5.0, 0.5]))
    assert loss.item() == pytest.approx(((3 - 5) ** 2 + (1 - 0.5) ** 2) / 2)


@pytest.mark.parametrize("name", ["bce", "bpr"])
def test_extreme_scores_stay_finite(name: str) -> None:
    scores = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])[:, : 1 + (name == "bpr")]
    loss = LOSSES[name](scores, torch.tensor([0.0, 1.0])).item()
    assert 0 < loss < inf


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_is_a_mean_so_that_repeating_a_batch_changes_nothing(name: str) -> None:
    scores = torch.tensor([[0.3, -0.2], [1.5, 0.1]])[:, : 1 + (name == "bpr")]
    target = torch.tensor([1.0, 0.0])
    once, twice = LOSSES[name](scores, target), LOSSES[name](scores.repeat(2, 1), target.repeat(2))
    assert once.item() == pytest.approx(twice.item(), rel=1e-6)

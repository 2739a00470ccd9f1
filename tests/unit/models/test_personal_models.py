"""PFedRec and FedRAP: order of updates, regularizers, and parameters used for scores."""

import math
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.models.fedrap import FedRAP
from fedrec_flower.models.pfedrec import PFedRec

NUM_ITEMS, DIM = 6, 3
ScoreWith = Literal["own", "shared"]


def pfedrec(score_with: ScoreWith = "shared") -> PFedRec:
    return PFedRec(NUM_ITEMS, None, "ranking", DIM, 0.1, score_with)


def fedrap(
    curriculum: Literal["tanh", "constant"] = "tanh", score_with: ScoreWith = "shared"
) -> FedRAP:
    model = FedRAP(NUM_ITEMS, None, "ranking", DIM, 0.1, 0.3, 0.7, curriculum, score_with)
    everything = [name for name, _ in model.named_parameters()]
    model.load(model.initial(everything, np.random.default_rng(5)))
    return model


def test_pfedrec_trains_the_score_function_before_the_items() -> None:
    model = pfedrec()
    head, items = model.update_groups(0)
    assert head == {"score.weight", "score.bias"}
    assert items == {"item_embedding.weight"}
    assert model.shared_names() == ["item_embedding.weight"]


@pytest.mark.parametrize(
    ("model", "tuned"),
    [
        (pfedrec("own"), {"item_embedding.weight"}),
        (pfedrec("shared"), set()),
        (fedrap(score_with="own"), {"common.weight"}),
        (fedrap(score_with="shared"), set()),
    ],
)
def test_locally_adapted_parameters_follow_score_with(
    model: PFedRec | FedRAP, tuned: set[str]
) -> None:
    assert model.locally_adapted == tuned


def test_fedrap_regularizer_equals_the_papers_terms() -> None:
    model = fedrap("constant")
    items = torch.tensor([4, 0, 4])
    common, own = (
        table.weight.detach().numpy()[items.numpy()] for table in (model.common, model.own)
    )
    added = model.regularizer(torch.zeros_like(items), items)
    assert added is not None
    expected = 0.7 * np.abs(common).mean(1) - 0.3 * ((common - own) ** 2).mean(1)
    assert_allclose(added.detach().numpy(), expected, rtol=1e-5)


def test_fedrap_curriculum_grows_from_zero_to_full_weight() -> None:
    growing, constant = fedrap("tanh"), fedrap("constant")
    items = torch.arange(NUM_ITEMS)

    def added(model: FedRAP, round_: int) -> float:
        model.on_round_start(round_)
        penalty = model.regularizer(items, items)
        assert penalty is not None
        return penalty.sum().item()

    whole = added(constant, 1)
    assert added(growing, 0) == 0.0
    assert added(growing, 10) == pytest.approx(math.tanh(1) * whole)
    assert added(growing, 1000) == pytest.approx(whole)


def test_fedrap_scores_use_the_sum_of_both_tables() -> None:
    model = fedrap()
    both = (model.common.weight + model.own.weight).detach().numpy()
    expected = both @ model.score.weight.detach().numpy()[0] + model.score.bias.item()
    scores = model.score_all(torch.arange(2)).detach().numpy()
    assert_allclose(scores, [expected, expected], rtol=1e-5)


def test_personal_models_reject_impossible_settings() -> None:
    with pytest.raises(ConfigError, match=r"model\.embedding_dim must be at least 1: 0"):
        PFedRec(NUM_ITEMS, None, "ranking", 0, 0.1, "own")
    with pytest.raises(ConfigError, match=r"model\.sparse must not be negative: -1"):
        FedRAP(NUM_ITEMS, None, "ranking", DIM, 0.1, 0.3, -1, "tanh", "own")

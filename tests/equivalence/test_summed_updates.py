"""Federations whose trainer adds updates at once equal those that lay out every update."""

from typing import TYPE_CHECKING

import pytest
from numpy.testing import assert_allclose

from fedrec_flower.federation.client.trainers import GradientTrainer

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

RUNS = [
    ("model=mf",),
    ("model=ncf", "training.loss=softmax", "training.batch_size=6"),
    ("model=mf", "task=rating", "training.loss=mse", "evaluation=rating"),
    ("model=mf", "strategy=fedprox", "federation.num_nodes=3"),
    ("model=mf", "partition=silo_quantity", "partition.num_clients=6"),
    ("model=mf", "training.weight_decay=0.01", "training.loss=bpr"),
    ("model=mf", "split.negatives=legacy"),
    ("model=mf", "faults=custom", "faults.dropout=0.3"),
    ("model=mf", "training.memory_budget_mb=1"),
]


@pytest.mark.parametrize("words", RUNS, ids=["-".join(words) for words in RUNS])
def test_a_federation_is_the_same_with_and_without_single_updates(
    federate: "Federate", monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    calls: list[int] = []
    add = GradientTrainer._add_updates

    def counted(self: GradientTrainer, *args: object) -> list[int]:
        calls.append(1)
        return add(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(GradientTrainer, "_add_updates", counted)
    summed = federate(*words, "num_rounds=3")
    assert calls
    monkeypatch.setattr(GradientTrainer, "_summing_trainer", lambda _: None)
    single = federate(*words, "num_rounds=3")
    assert summed.watcher.losses == pytest.approx(single.watcher.losses, rel=1e-5)
    assert summed.outcome.bytes_up == single.outcome.bytes_up
    for kind in ("shared", "personal"):
        for name, value in getattr(summed, kind).items():
            assert_allclose(value, getattr(single, kind)[name], rtol=1e-3, atol=1e-5)

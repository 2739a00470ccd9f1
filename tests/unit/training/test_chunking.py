"""Chunks within a memory budget: they change no result, and a budget too small is an error."""

import pytest
from numpy.testing import assert_allclose

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.training.chunking import _bytes_needed
from tests.helpers.one_round import Kind, Round


def _bytes_per_megabyte(members: list[ClientData], kind: Kind) -> int:
    """The unit of `memory_budget_mb` in which the budget just holds the largest client."""
    one = Round(kind)
    keeps = kind == "neumf"  # mf is trained in the compiled loop
    needed = _bytes_needed(one.model, one.training, one.engine.sampler, keeps_activations=keeps)
    return 1 + max(map(needed, members)) // one.training.memory_budget_mb


@pytest.mark.parametrize("kind", ["mf", "neumf"])
def test_number_of_chunks_does_not_change_the_result(
    members: list[ClientData], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    in_one_chunk = Round(kind).train(members)
    unit = _bytes_per_megabyte(members, kind)
    monkeypatch.setattr("fedrec_flower.training.chunking._BYTES_PER_MEGABYTE", unit)
    small_budget = Round(kind)
    chunks = [len(chunk) for chunk in small_budget.engine.chunks(members)]
    assert sum(chunks) == len(members)
    assert len(chunks) > 1
    in_chunks = small_budget.train(members)
    for client, expected in in_one_chunk.items():
        for name, change in expected.change.items():
            assert_allclose(in_chunks[client].change[name], change, rtol=1e-5, atol=1e-6)


def test_client_above_the_memory_budget_is_an_error_with_the_fix(
    members: list[ClientData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec_flower.training.chunking._BYTES_PER_MEGABYTE", 1)
    with pytest.raises(ConfigError, match=r"memory_budget_mb=64 allows less: raise it"):
        Round("mf").train(members)

"""Engines within a budget of memory: it changes no number, and one too small says so."""

import pytest
from numpy.testing import assert_allclose

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.training.chunking import _bytes_needed
from tests.helpers.one_round import Kind, Round


def _largest(members: list[ClientData], kind: Kind) -> int:
    """A budget, per `memory_budget_mb`, that holds the largest client and not much more."""
    one = Round(kind)
    activates = kind == "neumf"  # mf trains in the compiled loop
    needed = _bytes_needed(one.model, one.training, one.engine.sampler, activates=activates)
    return 1 + max(map(needed, members)) // one.training.memory_budget_mb


@pytest.mark.parametrize("kind", ["mf", "neumf"])
def test_how_many_clients_fit_into_memory_does_not_matter(
    members: list[ClientData], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    whole = Round(kind).train(members)
    monkeypatch.setattr("fedrec_flower.training.chunking._MEGABYTE", _largest(members, kind))
    narrow = Round(kind)
    chunks = [len(chunk) for chunk in narrow.engine.chunks(members)]
    assert sum(chunks) == len(members)
    assert len(chunks) > 1
    cut = narrow.train(members)
    for client, found in whole.items():
        for name in found.change:
            assert_allclose(cut[client].change[name], found.change[name], rtol=1e-5, atol=1e-6)


def test_a_client_that_does_not_fit_into_memory_names_the_mend(
    members: list[ClientData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedrec_flower.training.chunking._MEGABYTE", 1)
    with pytest.raises(ConfigError, match=r"memory_budget_mb=64 allows less: raise it"):
        Round("mf").train(members)

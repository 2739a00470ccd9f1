"""A step that computes only the histories of its users gives the same result."""

from typing import TYPE_CHECKING

import pytest
from numpy.testing import assert_allclose

from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.training.history_batches import HistoryBatches
from tests.helpers.one_round import READERS, Kind, Round

if TYPE_CHECKING:
    from torch import Tensor

    from fedrec_flower.core.types import IndexArray
    from tests.conftest import MakeClient

SILO = [[3, 8, 1, 12], [8, 20], [], [5, 6, 7, 8, 9, 10], [2]]


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_result_equals_that_of_steps_with_all_histories(
    make_client: "MakeClient", monkeypatch: pytest.MonkeyPatch, kind: Kind, loss: str
) -> None:
    round_ = Round(kind, engine="sequential", loss=loss, batch_size=5)
    data, entries = make_client(SILO, client=3), list[int]()
    model = round_.model
    assert isinstance(model, HistoryRecommender)
    encode = type(model).encode_history

    def counted(reader: HistoryRecommender, history: History) -> "Tensor":
        entries.append(len(history.item))
        return encode(reader, history)

    monkeypatch.setattr(type(model), "encode_history", counted)
    narrow, met = round_.train([data])[3], entries.copy()
    entries.clear()
    monkeypatch.setattr(HistoryBatches, "for_users", lambda _, history, __: history)
    whole = round_.train([data])[3]
    assert sum(met) < 0.8 * sum(entries)
    assert narrow.loss == pytest.approx(whole.loss, rel=1e-5)
    for name, change in whole.change.items():
        assert_allclose(narrow.change[name], change, rtol=1e-4, atol=1e-6)
    for name, value in whole.personal.items():
        assert_allclose(narrow.personal[name], value, rtol=1e-4, atol=1e-6)


def test_histories_of_all_users_are_not_copied(
    make_client: "MakeClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    for_users = HistoryBatches.for_users
    same = list[bool]()

    def watched(reading: HistoryBatches, history: History, users: "IndexArray") -> History:
        found = for_users(reading, history, users)
        same.append(found is history)
        return found

    monkeypatch.setattr(HistoryBatches, "for_users", watched)
    Round("gru4rec", engine="sequential", batch_size=5).train([make_client(SILO[:1], client=3)])
    assert same
    assert all(same)

"""Law of trainers that add updates at once: the sum is that of the single updates."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import Summed, SummingTrainer
from tests.helpers.one_round import NUM_ITEMS, ROUND, Kind, Learnt, Loss, Round

if TYPE_CHECKING:
    from tests.conftest import MakeClient

NO_LIMIT = 1e6


@dataclass(frozen=True)
class Proximal:
    """A gradient correction without a linear term."""

    proximal: float

    def linear_term(self, layout: Updates) -> Tensors:
        """No terms."""
        del layout
        return {}


def add_up(
    round_: Round, members: list[ClientData], versions: Versions, max_value: float = NO_LIMIT
) -> tuple[Summed, UpdateSum]:
    """Train clients and add their updates at once, with weights 1, 2, ..."""
    assert isinstance(round_.engine, SummingTrainer)
    assert round_.engine.can_sum(round_.shared)
    round_.num_users |= {data.client: data.num_users for data in members}
    shapes = {name: value.shape for name, value in round_.shared.items()}
    total = UpdateSum.zeros(shapes, NUM_ITEMS)
    summed = round_.engine.add_updates(
        Cohort.gather(members, spare_held_out=False),
        np.arange(1, len(members) + 1, dtype=np.float64),
        versions,
        round_,
        ROUND,
        round_.guide.proximal,
        max_value,
        total,
    )
    return summed, total


def require_sum(summed: Summed, total: UpdateSum, learnt: dict[int, Learnt], round_: Round) -> None:
    """The sum, the personal parameters and the losses are those of the single updates."""
    clients = summed.cohort.clients.tolist()
    weights = summed.weights * summed.is_valid
    assert total.weight == weights.sum()
    for name, found in total.tensors.items():
        each = [w * learnt[c].change[name] for w, c in zip(weights, clients, strict=True)]
        assert_allclose(found, np.sum(each, axis=0), rtol=1e-4, atol=1e-5)
    row_weight = np.zeros(NUM_ITEMS)
    for weight, client, count in zip(weights, clients, summed.num_rows, strict=True):
        row_weight[learnt[client].rows] += weight
        assert count == len(learnt[client].rows)
    assert_allclose(total.row_weight, row_weight)
    for place, client in enumerate(clients):
        if summed.is_valid[place]:
            assert summed.loss[place] == pytest.approx(learnt[client].loss, rel=1e-5)
            users = slice(*summed.cohort.user_offsets[place : place + 2])
            for name in round_.model.user_rows:
                own = learnt[client].personal[name]
                assert_allclose(summed.personal[name][users], own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["mf", "gmf"])
@pytest.mark.parametrize("loss", ["bce", "bpr", "softmax", "mse"])
@pytest.mark.parametrize("batch_size", [7, None])
@pytest.mark.parametrize(("proximal", "weight_decay"), [(0.0, 0.0), (0.0, 0.1), (0.4, 0.1)])
def test_the_sum_is_that_of_the_single_updates(
    members: list[ClientData],
    kind: Kind,
    loss: Loss,
    batch_size: int | None,
    proximal: float,
    weight_decay: float,
) -> None:
    words: dict[str, Any] = {"loss": loss, "batch_size": batch_size, "weight_decay": weight_decay}
    reference = Round(kind, engine="sequential", guide=Proximal(proximal), **words)
    learnt = reference.train(members)
    round_ = Round(kind, engine="vectorized", guide=Proximal(proximal), **words)
    summed, total = add_up(round_, members, Versions.single(round_.shared))
    assert summed.is_valid.all()
    require_sum(summed, total, learnt, round_)


def test_each_client_starts_from_its_version(members: list[ClientData]) -> None:
    one, other = Round("gmf"), Round("gmf")
    other.shared = {name: 0.5 - value for name, value in one.shared.items()}
    learnt = one.train(members)
    for data in members[1:3]:
        learnt |= other.train([data])
    both = Versions(
        {name: np.stack([one.shared[name], other.shared[name]]) for name in one.shared},
        {data.client: int(place in {1, 2}) for place, data in enumerate(members)},
    )
    summed, total = add_up(one, members, both)
    require_sum(summed, total, learnt, one)


def test_an_update_beyond_the_limit_is_left_out(members: list[ClientData]) -> None:
    round_ = Round("mf", learning_rate=3.0)
    learnt = round_.train(members)
    largest = {c: max(abs(v).max() for v in own.change.values()) for c, own in learnt.items()}
    limit = float(np.median(list(largest.values())))
    summed, total = add_up(round_, members, Versions.single(round_.shared), limit)
    left_out = summed.cohort.clients[~summed.is_valid].tolist()
    assert set(left_out) >= {client for client, value in largest.items() if value > limit}
    require_sum(summed, total, learnt, round_)


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_a_client_that_diverges_is_left_out_and_harms_nobody(
    make_client: "MakeClient", loss: Loss
) -> None:
    stays, diverges = (
        make_client([[1, 2, 3]], ratings=[[[value] * 3], [[]], [[]]], client=client)
        for client, value in ((3, 1.0), (4, np.inf))
    )
    round_ = Round("mf", loss=loss)
    if loss == "bce":
        bad = {name: np.full_like(value, np.nan) for name, value in round_.shared.items()}
    else:
        bad = round_.shared
    both = Versions(
        {name: np.stack([round_.shared[name], bad[name]]) for name in bad}, {3: 0, 4: 1}
    )
    summed, total = add_up(round_, [stays, diverges], both)
    assert_array_equal(summed.is_valid, [True, False])
    require_sum(summed, total, round_.train([stays, diverges]), round_)
    assert all(np.isfinite(value).all() for value in total.tensors.values())


@settings(max_examples=25, deadline=None)
@given(
    histories=st.lists(
        st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), unique=True, max_size=9), min_size=1),
        min_size=1,
        max_size=5,
    ),
    batch_size=st.sampled_from([1, 5, None]),
    loss=st.sampled_from(["bce", "bpr", "softmax"]),
)
def test_any_clients_have_the_sum_of_their_single_updates(
    make_client: "MakeClient",
    histories: list[list[list[int]]],
    batch_size: int | None,
    loss: Loss,
) -> None:
    members = [make_client(users, client=3 * place) for place, users in enumerate(histories)]
    round_ = Round("mf", loss=loss, batch_size=batch_size)
    summed, total = add_up(round_, members, Versions.single(round_.shared))
    require_sum(summed, total, round_.train(members), round_)

"""Laws of crafted updates: they go down their loss, keep their bounds, and touch no one else's."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.instantiate import build
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import Prepared, starts
from fedrec_flower.experiment.composition import compose
from fedrec_flower.models.mf import MF
from fedrec_flower.models.ncf import NCF
from fedrec_flower.threats.explicit_boosting import ascent
from fedrec_flower.threats.fedrecattack import (
    FedRecAttack,
    Public,
    clip_rows,
    fit_user_vectors,
    promotion_direction,
)
from fedrec_flower.threats.item_gradients import BilinearScores, ItemRows, replace_item_rows

if TYPE_CHECKING:
    from tests.conftest import PrepareSmall

ITEM, BIAS, USER = "item_embedding.weight", "item_bias.weight", "user_embedding.weight"
TABLES = frozenset({ITEM, BIAS, "control/other"})
DIM = 4


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def updates(clients: list[int], rows: list[list[int]]) -> Updates:
    """Updates of MF, with an additional table and a dense vector."""
    count, flat = len(clients), np.array([row for mine in rows for row in mine])
    tensors = {ITEM: normal(len(flat), DIM), BIAS: normal(len(flat), 1)}
    tensors |= {"control/other": normal(len(flat), 2), "dense": normal(count, 3)}
    offsets = starts([*map(len, rows)])
    return Updates(np.array(clients), np.arange(1.0, count + 1), offsets, flat, tensors)


@pytest.fixture
def data(prepare_small: "PrepareSmall") -> Prepared:
    return prepare_small()


def shared(num_items: int) -> Tensors:
    return {ITEM: normal(num_items, DIM, seed=1), BIAS: normal(num_items, 1, seed=2)}


def own(name: str, client: int) -> Any:
    assert name == USER
    return normal(1, DIM, seed=10 + client)


def crafted(data: Prepared, name: str, sent: Updates, **choices: Any) -> tuple[Any, Updates]:
    """The attack, and the updates after it."""
    model = MF(1, data.num_items, None, "ranking", embedding_dim=DIM, init_std=0.1)
    node = compose([f"attack={name}"])[0]["attack"] | {"malicious": 0.5, "num_targets": 2} | choices
    attack = build("attack", node, seed=3, data=data, model=model)
    given_to = shared(data.num_items)
    return attack, attack.poison(sent, lambda _: given_to, own, TABLES, 1)


def everyone(data: Prepared) -> Updates:
    """Updates of every client, each of a few rows of its own."""
    rng = np.random.default_rng(7)
    sizes = rng.integers(1, 9, data.num_clients)
    rows = [np.sort(rng.choice(data.num_items, size, replace=False)).tolist() for size in sizes]
    return updates(rng.permutation(data.num_clients).tolist(), rows)


# --- rewriting ----------------------------------------------------------------------------------


def test_replaced_rows_keep_the_places_of_the_clients() -> None:
    before = updates([5, 2, 9], [[1, 4], [], [0]])
    change = {ITEM: normal(3, DIM, seed=4)}
    after = replace_item_rows(before, {1: ItemRows(np.array([2, 3, 7]), change)}, TABLES)
    assert_array_equal(after.offsets, [0, 2, 5, 6])
    assert_array_equal(after.rows, [1, 4, 2, 3, 7, 0])
    assert_array_equal(after.tensors[ITEM][2:5], change[ITEM])
    assert_array_equal(after.tensors["control/other"][2:5], np.zeros((3, 2)))
    assert_array_equal(after.tensors["dense"], before.tensors["dense"])


def test_item_rows_over_others_replace_only_equal_rows() -> None:
    learnt = ItemRows(np.array([1, 4]), {ITEM: normal(2, DIM), "control/other": normal(2, 2)})
    whole = ItemRows(np.array([4, 6]), {ITEM: normal(2, DIM, seed=5)}).over(learnt)
    assert_array_equal(whole.rows, [1, 4, 6])
    assert_array_equal(whole.tensors[ITEM][0], learnt.tensors[ITEM][0])
    assert_array_equal(whole.tensors[ITEM][1:], normal(2, DIM, seed=5))
    other = whole.tensors["control/other"]
    assert_array_equal(other[0], learnt.tensors["control/other"][0])
    assert not other[1:].any()


@pytest.mark.parametrize("name", ["explicit_boosting", "fedrecattack"])
def test_updates_of_honest_clients_are_equal_bit_for_bit(data: Prepared, name: str) -> None:
    before, untouched = everyone(data), everyone(data)
    attack, after = crafted(data, name, before)
    assert_array_equal(after.clients, before.clients)
    assert_array_equal(after.weights, before.weights)
    assert_array_equal(after.tensors["dense"], before.tensors["dense"])
    honest = np.flatnonzero(~np.isin(before.clients, attack.malicious_clients))
    ours, theirs = after.select(honest, TABLES), before.select(honest, TABLES)
    assert_array_equal(ours.rows, theirs.rows)
    for key, value in theirs.tensors.items():
        assert_array_equal(ours.tensors[key], value)
    for key, value in untouched.tensors.items():  # the input is not changed
        assert_array_equal(before.tensors[key], value)


@pytest.mark.parametrize("name", ["explicit_boosting", "fedrecattack"])
def test_malicious_clients_send_finite_target_rows_in_order(data: Prepared, name: str) -> None:
    attack, after = crafted(data, name, everyone(data))
    for place in attack.malicious_places(after):
        rows = after.rows[after.offsets[place] : after.offsets[place + 1]]
        assert (np.diff(rows) > 0).all()
        assert set(attack.promoted.tolist()) <= set(rows.tolist())
    assert all(np.isfinite(value).all() for value in after.tensors.values())


@pytest.mark.parametrize("name", ["explicit_boosting", "fedrecattack"])
def test_updates_are_the_same_object_without_malicious_clients(data: Prepared, name: str) -> None:
    before = everyone(data)
    assert crafted(data, name, before, malicious=0.0)[1] is before
    nothing = Updates(before.clients, before.weights, before.offsets, before.rows, {})
    assert crafted(data, name, nothing)[1] is nothing


@pytest.mark.parametrize("name", ["explicit_boosting", "fedrecattack"])
def test_a_malicious_update_does_not_depend_on_other_clients_of_the_node(
    data: Prepared, name: str
) -> None:
    before = everyone(data)
    attack, after = crafted(data, name, before)
    place = int(attack.malicious_places(before)[-1])
    alone = crafted(data, name, before.select(np.array([place]), TABLES))[1]
    whole = after.select(np.array([place]), TABLES)
    assert_array_equal(alone.rows, whole.rows)
    assert_array_equal(alone.tensors[ITEM], whole.tensors[ITEM])


# --- explicit boosting --------------------------------------------------------------------------


def test_boosting_ascends_the_likelihood_of_the_targets() -> None:
    faces, targets = normal(3, DIM + 1), normal(2, DIM + 1, seed=1)
    rows = torch.from_numpy(targets).requires_grad_()
    torch.nn.functional.logsigmoid(torch.from_numpy(faces) @ rows.T).mean(dim=0).sum().backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
    assert rows.grad is not None
    assert_allclose(ascent(faces, targets), rows.grad.numpy(), rtol=1e-5, atol=1e-6)


def test_a_boosting_client_sends_the_boosted_step_and_its_honest_rows(data: Prepared) -> None:
    before = everyone(data)
    attack, after = crafted(data, "explicit_boosting", before, boost=7.0)
    place = int(attack.malicious_places(before)[0])
    learnt, sent = (ItemRows.of(each, place, TABLES) for each in (before, after))
    faces = np.append(own(USER, int(before.clients[place])), np.float32(1))[None]
    rows = BilinearScores.of(attack.model).rows(shared(data.num_items))[attack.promoted]
    push = 7.0 * ascent(faces, rows)
    at = np.searchsorted(sent.rows, attack.promoted)
    assert_allclose(sent.tensors[ITEM][at], push[:, :-1], rtol=1e-5)
    assert_allclose(sent.tensors[BIAS][at], push[:, -1:], rtol=1e-5)
    rest = np.setdiff1d(learnt.rows, attack.promoted)
    for name in TABLES:
        mine = learnt.tensors[name][np.searchsorted(learnt.rows, rest)]
        assert_array_equal(sent.tensors[name][np.searchsorted(sent.rows, rest)], mine)


# --- FedRecAttack -------------------------------------------------------------------------------


def naive_loss(faces: Any, rows: Any, had: Any, targets: list[int], top_k: int) -> torch.Tensor:
    """Rong et al. 2022, word by word."""
    total = torch.zeros(())
    for user in range(len(faces)):
        scores = rows @ faces[user]
        free = [i for i in range(len(rows)) if not had[user, i] and i not in targets]
        last = sorted((scores[i] for i in free), reverse=True)[top_k - 1]
        for target in targets:
            if not had[user, target]:
                gap = last - scores[target]
                total = total + (gap if gap >= 0 else torch.exp(gap) - 1)
    return total


def test_promotion_direction_descends_the_loss_of_the_paper() -> None:
    faces, rows = normal(6, DIM + 1), normal(12, DIM + 1, seed=1)
    had = np.random.default_rng(2).random((6, 12)) < 0.3
    targets = [2, 9]
    had[:, targets] = [[True, False]] * 2 + [[False, True]] + [[False, False]] * 3
    table = torch.from_numpy(rows).requires_grad_()
    naive_loss(torch.from_numpy(faces), table, had, targets, 3).backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
    assert table.grad is not None
    down = promotion_direction(faces, rows, had, np.array(targets), 3)
    assert_allclose(down, -table.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_a_user_with_nearly_all_items_adds_no_gradient() -> None:
    had = np.ones((1, 6), bool)
    had[0, :2] = False  # a target and one other: no list of three
    down = promotion_direction(normal(1, DIM + 1), normal(6, DIM + 1), had, np.array([0]), 3)
    assert not down.any()


def test_fitted_user_vectors_explain_public_interactions() -> None:
    rows = normal(40, DIM + 1)
    liked = np.array([3, 8, 21])
    known = Public(2, np.array([0, 0, 1]), liked)
    found = fit_user_vectors(rows, known, steps=60, learning_rate=0.1, rng=np.random.default_rng(0))
    scores = found @ rows[:, :-1].T + rows[:, -1]
    for user, item in zip(known.user, liked, strict=True):
        assert (scores[user] < scores[user, item]).mean() > 0.8


@given(st.integers(0, 99), st.floats(1e-3, 1e3), st.floats(0, 1e6))
def test_clipped_rows_keep_the_bound_and_their_directions(
    seed: int, longest: float, scale: float
) -> None:
    rows = normal(5, DIM, seed=seed) * np.float32(scale)
    short = clip_rows(rows, longest)
    length = np.linalg.norm(short, axis=1)
    assert (length <= longest * (1 + 1e-5)).all()
    within = np.linalg.norm(rows, axis=1) <= longest
    assert_array_equal(short[within], rows[within])
    along = (short * rows).sum(axis=1)
    assert_allclose(along, length * np.linalg.norm(rows, axis=1), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("longest", [0.01, 0.5, 20.0])
def test_a_malicious_update_keeps_both_bounds(data: Prepared, longest: float) -> None:
    attack, after = crafted(
        data, "fedrecattack", everyone(data), max_row_norm=longest, max_rows=5, public=0.5
    )
    whole = np.concatenate([after.tensors[ITEM], after.tensors[BIAS]], axis=1)
    for place in attack.malicious_places(after):
        own_rows = whole[after.offsets[place] : after.offsets[place + 1]]
        assert 2 <= len(own_rows) <= 5
        assert (np.linalg.norm(own_rows, axis=1) <= longest * (1 + 1e-5)).all()


def test_public_interactions_are_a_fixed_share_of_training(data: Prepared) -> None:
    attack = crafted(data, "fedrecattack", everyone(data), public=0.3)[0]
    duplicate = crafted(Prepared(data.path), "fedrecattack", everyone(data), public=0.3)[0]
    known = attack.known
    assert_array_equal(known.item, duplicate.known.item)
    pairs = {(c, i) for c in range(12) for i in data.client(c).train.item.tolist()}
    users = generator(3, "public").random(len(pairs)) < 0.3
    assert len(known.item) == users.sum()
    assert known.users == len(np.unique(known.user))


def test_clients_with_equal_parameters_share_one_direction(data: Prepared) -> None:
    attack: FedRecAttack = crafted(data, "fedrecattack", everyone(data))[0]
    assert len(attack.directions) == 1
    versions = [shared(data.num_items), {k: v + 1 for k, v in shared(data.num_items).items()}]
    attack.poison(everyone(data), lambda client: versions[client % 2], own, TABLES, 2)
    assert {round_ for round_, _ in attack.directions} == {2}
    assert len(attack.directions) == len({int(client) % 2 for client in attack.malicious_clients})


# --- other models -------------------------------------------------------------------------------


def test_rows_and_faces_give_the_scores_of_the_model() -> None:
    for model in (
        MF(3, 7, None, "ranking", embedding_dim=DIM, init_std=0.5),
        NCF(3, 7, None, "ranking", "gmf", embedding_dim=DIM, hidden_dims=[], init_std=0.5),
    ):
        values = {n: normal(*p.shape, seed=len(n)) for n, p in model.named_parameters()}
        model.load(values)
        seen = BilinearScores.of(model)
        faces = seen.faces(0, values, lambda name, _, values=values: values[name])  # type: ignore[misc]  # bound early
        scores = model.score_all(torch.arange(3)).detach().numpy()
        ours = faces @ seen.rows(values).T
        assert_allclose(ours - ours[:, :1], scores - scores[:, :1], rtol=1e-4, atol=1e-5)
        changed = {n: values[n] + c for n, c in seen.changes(seen.rows(values)).items()}
        for name, value in changed.items():
            assert_allclose(value, 2 * values[name])

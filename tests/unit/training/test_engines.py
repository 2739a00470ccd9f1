"""Every trainer against a plain PyTorch loop over whole tables, and laws of its results."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.data.prepared import ClientData
from tests.helpers.one_round import READERS, ROUND, TOWERS, Kind, Loss, Round, make, value

_BY_VECTORS = [
    pytest.param("sequential", "mf", id="sequential-mf"),
    pytest.param("sequential", "neumf", id="sequential-neumf"),
    pytest.param("vectorized", "mf", id="compiled-mf"),
    pytest.param("vectorized", "gmf", id="compiled-gmf"),
    pytest.param("vectorized", "neumf", id="vectorized-neumf"),
]
_BY_HISTORY = [
    pytest.param(engine, kind, id=f"{engine}-{kind}")
    for engine in ("sequential", "vectorized")
    for kind in READERS
]
_BY_BOTH = [
    pytest.param(engine, "hybrid", id=f"{engine}-hybrid") for engine in ("sequential", "vectorized")
]
_EVERY_PAIR = [param.values for param in (*_BY_VECTORS, *_BY_HISTORY, *_BY_BOTH)]
EVERY_ENGINE = pytest.mark.parametrize(("engine", "kind"), _BY_VECTORS + _BY_HISTORY + _BY_BOTH)
LOSSES = ("bce", "bpr", "softmax", "mse")
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES)


def grid(*axes: Sequence[Any], share: int) -> list[Any]:
    """Every combination of the axes. One in `share` runs by default, the others are slow tests.

    The default ones lie on a diagonal, so every value of each axis occurs among them.
    """
    places = product(*(range(len(axis)) for axis in axes))
    return [
        pytest.param(
            *(axis[at] for axis, at in zip(axes, place, strict=True)),
            marks=[] if sum(place) % share == 0 else pytest.mark.slow,
        )
        for place in places
    ]


@pytest.mark.parametrize(
    ("engine", "kind", "optimization", "loss"),
    grid(
        ("sequential", "vectorized"),
        ("mf", "gmf", "neumf", *READERS, *TOWERS),
        (("sgd", 7), ("sgd", None), ("adam", 7)),
        LOSSES,
        share=4,
    ),
)
def test_training_the_touched_rows_equals_training_the_whole_model(
    members: list[ClientData],
    kind: Kind,
    loss: Loss,
    optimization: tuple[str, int | None],
    engine: str,
) -> None:
    optimizer, batch_size = optimization
    shifted = {"bpr": TOWERS, "softmax": [*TOWERS, "gmf", "neumf", "sasrec"]}
    if optimizer == "adam" and kind in shifted.get(loss, ()):
        pytest.skip("a bias of all items moves no order, and Adam makes steps of the rounding")
    round_ = Round(kind, loss=loss, optimizer=optimizer, engine=engine, batch_size=batch_size)
    # Adam's steps do not shrink with the gradient: rounding of a small one weighs more.
    atol = 1e-5 if optimizer == "sgd" else 2e-4
    learnt = round_.train(members)
    assert set(learnt) == {6, 2, 5, 9}
    for data in members:
        found, (model, expected_loss) = learnt[data.client], round_.plainly(data)
        assert found.loss == pytest.approx(expected_loss, rel=1e-4)
        for name in model.shared_names():
            ours = round_.shared[name] + found.change[name]
            assert_allclose(ours, value(model, name), rtol=1e-4, atol=atol)
        for name in model.personal_names():
            assert_allclose(found.personal[name], value(model, name), rtol=1e-4, atol=1e-5)


@EVERY_ENGINE
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weight_decay_changes_the_touched_rows_only(
    members: list[ClientData],
    engine: str,
    kind: Kind,
    optimizer: str,
) -> None:
    round_ = Round(
        kind,
        engine=engine,
        optimizer=optimizer,
        weight_decay=0.1,
        num_negatives=1,
        batch_size=2,
    )
    learnt = round_.train(members)
    for data in members:
        found, (model, _) = learnt[data.client], round_.plainly(data)
        for name in model.shared_names():
            rows = found.rows if name in model.item_rows else slice(None)
            ours = round_.shared[name] + found.change[name]
            assert_allclose(ours[rows], value(model, name)[rows], rtol=1e-4, atol=1e-5)
        for name in model.personal_names():
            assert_allclose(found.personal[name], value(model, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_weight_decay_does_not_change_dense_parameters(
    members: list[ClientData], engine: str
) -> None:
    without, with_decay = (
        Round("neumf", engine=engine, learning_rate=0.0, weight_decay=decay).train(members)
        for decay in (0.0, 9.0)
    )
    assert without[6].equals(with_decay[6])


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_tables_and_dense_parameters_have_separate_learning_rates(
    members: list[ClientData], engine: str
) -> None:
    still_tables = Round("neumf", engine=engine, learning_rate=0.0)
    still_dense = Round("neumf", engine=engine, dense_learning_rate=0.0)
    by_dense, by_tables = still_tables.train(members)[6], still_dense.train(members)[6]
    for name in still_tables.shared:
        is_table = name in still_tables.model.item_rows
        assert by_dense.change[name].any() == (not is_table)
        assert by_tables.change[name].any() == is_table


@pytest.mark.parametrize(("engine", "kind"), _BY_VECTORS)
def test_loss_is_the_mean_over_the_samples_before_each_step(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    round_ = Round(kind, engine=engine, loss="mse", learning_rate=0.0, dense_learning_rate=0.0)
    learnt = round_.train(members)
    for data in members[:2]:
        model = make(kind, data.num_users, "mse")
        model.load(round_.everything | round_.personal(data.client))
        users, items = data.train.users(), data.train.item
        scores = model(torch.from_numpy(users), torch.from_numpy(items.astype(np.int64)))
        expected = np.mean((scores.detach().numpy() - data.train.rating) ** 2)
        assert learnt[data.client].loss == pytest.approx(expected, rel=1e-5)


@EVERY_ENGINE
def test_update_has_the_weights_and_rows_of_the_clients(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    round_ = Round(kind, engine=engine)
    learnt = round_.train(members)
    for data in members:
        found = learnt[data.client]
        assert found.weight == len(data)
        assert found.rows.tolist() == sorted(set(found.rows.tolist()))
        assert set(data.train.item.tolist()) <= set(found.rows.tolist())
        tables = [found.change[name] for name in round_.shared if name in round_.model.item_rows]
        moved = np.flatnonzero(np.concatenate(tables, axis=1).any(axis=1)).tolist()
        if kind == "fedrecon":  # its histories contain negatives, whose rows it does not change
            assert set(moved) <= set(found.rows.tolist())
        else:
            assert moved == found.rows.tolist()


@EVERY_ENGINE
def test_rating_client_touches_only_the_items_it_rated(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    learnt = Round(kind, engine=engine, loss="mse").train(members)
    for data in members:
        assert learnt[data.client].rows.tolist() == sorted(set(data.train.item.tolist()))


@EVERY_ENGINE
def test_result_of_a_client_does_not_depend_on_other_clients(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    round_ = Round(kind, engine=engine)
    together, reversed_ = round_.train(members), round_.train(members[::-1])
    for data in members:
        alone = round_.train([data])[data.client]
        for among in (together[data.client], reversed_[data.client]):
            assert among.loss == pytest.approx(alone.loss, rel=1e-6)
            for name in alone.change:
                assert_allclose(among.change[name], alone.change[name], rtol=1e-5, atol=1e-6)
            for name in alone.personal:
                assert_allclose(among.personal[name], alone.personal[name], rtol=1e-5, atol=1e-6)


@EVERY_ENGINE
def test_result_is_equal_for_the_same_round_and_differs_in_another(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    one, again = (Round(kind, engine=engine).train(members) for _ in range(2))
    other = Round(kind, engine=engine).train(members, round_=ROUND + 1)
    for client in (6, 2, 9):
        assert one[client].equals(again[client])
        assert not one[client].equals(other[client])


@EVERY_ENGINE
def test_training_does_not_change_the_global_parameters(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    round_ = Round(kind, engine=engine)
    before = {name: array.copy() for name, array in round_.shared.items()}
    for array in round_.shared.values():
        array.setflags(write=False)  # as the memory of a message may be
    round_.train(members)
    for name, array in before.items():
        assert_array_equal(round_.shared[name], array)


@pytest.mark.parametrize(("pair", "loss"), grid(_EVERY_PAIR, LOSSES, share=2))
def test_personal_parameters_are_trained_as_shared_ones(
    members: list[ClientData], pair: tuple[str, Kind], loss: Loss
) -> None:
    engine, kind = pair
    sharing = Round(kind, engine=engine, loss=loss)
    shared = sharing.train(members)
    kept = Round(kind, engine=engine, loss=loss, shares=False).train(members)
    for client, found in kept.items():
        assert found.change == {}
        assert found.loss == pytest.approx(shared[client].loss, rel=1e-6)
        for name, change in shared[client].change.items():
            expected = sharing.shared[name] + change
            assert_allclose(found.personal[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("engine", "kind"), _BY_VECTORS)
@EVERY_LOSS
def test_diverged_client_sends_zeros_and_keeps_its_personal_parameters(
    members: list[ClientData], engine: str, kind: Kind, loss: Loss
) -> None:
    round_ = Round(kind, engine=engine, loss=loss, learning_rate=1e30, local_epochs=5)
    for client, learnt in round_.train(members[:2]).items():
        assert not np.isfinite(learnt.loss), client
        assert not any(change.any() for change in learnt.change.values())
        for name, kept in learnt.personal.items():
            assert_array_equal(kept, round_.personal(client)[name])


@pytest.mark.parametrize(
    ("pair", "loss", "batch_size"), grid(_EVERY_PAIR, LOSSES, (7, None), share=4)
)
def test_client_without_training_data_sends_zeros(
    members: list[ClientData], pair: tuple[str, Kind], loss: Loss, batch_size: int | None
) -> None:
    engine, kind = pair
    round_ = Round(kind, engine=engine, loss=loss, batch_size=batch_size, weight_decay=0.1)
    nothing = [data for data in members if data.client == 5]
    found = round_.train(nothing)[5]
    assert found.weight == 0
    assert np.isfinite(found.loss)
    assert not any(change.any() for change in found.change.values())
    for name, before in round_.personal(5).items():
        assert_array_equal(found.personal[name], before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["mf", "gmf", "neumf", *READERS, *TOWERS])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@EVERY_LOSS
def test_gpu_equals_cpu(members: list[ClientData], kind: Kind, loss: Loss, optimizer: str) -> None:
    on_cpu, on_gpu = (
        Round(kind, loss=loss, optimizer=optimizer, device=device).train(members)
        for device in ("cpu", "cuda")
    )
    for client, found in on_cpu.items():
        assert on_gpu[client].loss == pytest.approx(found.loss, rel=1e-4)
        for name in found.change:
            assert_allclose(on_gpu[client].change[name], found.change[name], rtol=1e-3, atol=1e-5)

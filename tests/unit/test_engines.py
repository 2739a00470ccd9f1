"""Every engine against a plain PyTorch loop over whole tables, and its manners."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.errors import ConfigError, TrainingError
from fedrec_flower.models import MF, NCF, Recommender
from fedrec_flower.models.base import Tensors
from fedrec_flower.prepared import ClientData
from fedrec_flower.training import Cohort, Engine, LocalTraining, Touched, choose_engine
from fedrec_flower.training.compiled import CompiledEngine
from fedrec_flower.training.memory import _bytes_needed
from fedrec_flower.training.sequential import SequentialEngine
from fedrec_flower.training.vectorized import VectorizedEngine

if TYPE_CHECKING:
    from tests.conftest import MakeClient, TrainPlainly

NUM_ITEMS, SEED, ROUND = 25, 4, 3
TRAINING = LocalTraining(
    engine="vectorized",
    memory_budget_mb=64,
    loss="bce",
    optimizer="sgd",
    learning_rate=0.3,
    dense_learning_rate=0.05,
    weight_decay=0.0,
    local_epochs=2,
    batch_size=7,
    num_negatives=3,
)

Kind = Literal["mf", "gmf", "neumf"]
Loss = Literal["bce", "bpr", "mse"]
EVERY_ENGINE = pytest.mark.parametrize(
    ("engine", "kind"),
    [
        pytest.param("sequential", "mf", id="sequential-mf"),
        pytest.param("sequential", "neumf", id="sequential-neumf"),
        pytest.param("vectorized", "mf", id="compiled-mf"),
        pytest.param("vectorized", "gmf", id="compiled-gmf"),
        pytest.param("vectorized", "neumf", id="vectorized-neumf"),
    ],
)
EVERY_LOSS = pytest.mark.parametrize("loss", ["bce", "bpr", "mse"])


def make(kind: Kind, num_users: int, loss: Loss) -> Recommender:
    task = "rating" if loss == "mse" else "ranking"
    if kind == "mf":
        return MF(num_users, NUM_ITEMS, (1.0, 5.0), task, embedding_dim=4, init_std=0.1)
    return NCF(num_users, NUM_ITEMS, (1.0, 5.0), task, kind, 4, [8, 4], init_std=0.1)


@pytest.fixture
def members(make_client: "MakeClient") -> list[ClientData]:
    """Clients of several sizes, one of two users, one that trains on nothing."""
    histories = {6: [[3, 8, 1, 12], [8, 20]], 2: [[0, 9, 4]], 5: [[]], 9: [[8, 7, 6, 5, 4, 3, 2]]}
    return [
        make_client(
            train,
            ratings=[[[1.0 + item % 5 for item in own] for own in train], *[[[]] * len(train)] * 2],
            client=client,
        )
        for client, train in histories.items()
    ]


@dataclass(frozen=True)
class Learnt:
    """What one client's round led to, at full shapes."""

    weight: float
    rows: NDArray[np.int64]
    change: Tensors
    personal: Tensors
    loss: float

    def equals(self, other: "Learnt") -> bool:
        pairs = [
            *((self.change[name], other.change[name]) for name in self.change),
            *((self.personal[name], other.personal[name]) for name in self.personal),
        ]
        return self.loss == other.loss and all(np.array_equal(*pair) for pair in pairs)


class Federation:
    """An engine, global parameters and every client's own, before the round.

    Args:
        kind: the model.
        shares: whether shared parameters travel; if not, every client keeps a copy.
        choices: changes to the training settings.
    """

    def __init__(self, kind: Kind, *, shares: bool = True, **choices: Any) -> None:
        self.kind, self.training = kind, replace(TRAINING, **choices)
        self.model = make(kind, 1, self.training.loss)
        names = self.model.shared_names()
        self.everything = self.model.initial(names, np.random.default_rng(1))
        self.shared = self.everything if shares else {}
        self.engine = choose_engine(
            self.model,
            self.training,
            task="rating" if self.training.loss == "mse" else "ranking",
            negatives="honest",
            num_items=NUM_ITEMS,
            seed=SEED,
        )
        self.users: dict[int, int] = {}

    def personal(self, client: int) -> Tensors:
        """A client's personal parameters before the round."""
        whole = make(self.kind, self.users[client], self.training.loss)
        own = whole.initial(whole.personal_names(), np.random.default_rng(client + 100))
        return own if self.shared else own | {n: v.copy() for n, v in self.everything.items()}

    def gather(self, cohort: Cohort, touched: Touched) -> Tensors:
        """See `PersonalParameters.gather`."""
        clients = [self.personal(int(client)) for client in cohort.clients]
        gathered: Tensors = {}
        for name in clients[0]:
            each = [own[name] for own in clients]
            if name in self.model.item_rows:
                rows = np.split(touched.rows, touched.offsets[1:-1])
                each = [value[own] for value, own in zip(each, rows, strict=True)]
            tables = self.model.user_rows | self.model.item_rows
            gathered[name] = np.concatenate(each) if name in tables else np.stack(each)
        return gathered

    def train(self, members: Sequence[ClientData], round_: int = ROUND) -> dict[int, Learnt]:
        """Train; gives what each client learnt."""
        self.users |= {data.client: data.num_users for data in members}
        found: dict[int, Learnt] = {}
        for trained in self.engine.train(members, self.shared, self, round_):
            offsets, rows = trained.updates.offsets, trained.updates.rows
            assert_array_equal(trained.updates.clients, trained.cohort.clients)
            assert_array_equal(rows, trained.touched.rows)
            users = trained.cohort.user_offsets
            for place, client in enumerate(trained.updates.clients.tolist()):
                own = slice(offsets[place], offsets[place + 1])
                mine = slice(users[place], users[place + 1])
                change = {
                    name: self._whole(name, value, own, place, rows[own], None)
                    for name, value in trained.updates.tensors.items()
                }
                before = self.personal(client)
                personal = {
                    name: (
                        value[mine]
                        if name in self.model.user_rows
                        else self._whole(name, value, own, place, rows[own], before[name])
                    )
                    for name, value in trained.personal.items()
                }
                weight = float(trained.updates.weights[place])
                found[client] = Learnt(
                    weight, rows[own], change, personal, float(trained.loss[place])
                )
        return found

    def _whole(
        self,
        name: str,
        value: NDArray[np.float32],
        own: slice,
        place: int,
        rows: NDArray[np.int64],
        rest: NDArray[np.float32] | None,
    ) -> NDArray[np.float32]:
        """One client's part of what an engine gives, at its full shape."""
        if name not in self.model.item_rows:
            return value[place]
        whole = np.zeros_like(self.everything[name]) if rest is None else rest.copy()
        whole[rows] = value[own]
        return whole

    def plainly(self, data: ClientData, plainly: "TrainPlainly") -> tuple[Recommender, float]:
        """The same round of one client in a plain loop over whole tables."""
        model = make(self.kind, data.num_users, self.training.loss)
        self.users[data.client] = data.num_users
        begun = {n: v.copy() for n, v in (self.everything | self.personal(data.client)).items()}
        model.load(begun)
        loss = plainly(model, data, self.training, ROUND, num_items=NUM_ITEMS, seed=SEED)
        return model, loss


def value(model: Recommender, name: str) -> NDArray[np.float32]:
    array: NDArray[np.float32] = model.get_parameter(name).detach().numpy()
    return array


@pytest.mark.parametrize(
    ("kind", "optimizer", "engine", "chosen"),
    [
        ("mf", "sgd", "sequential", SequentialEngine),
        ("mf", "sgd", "vectorized", CompiledEngine),
        ("gmf", "sgd", "vectorized", CompiledEngine),
        ("mf", "adam", "vectorized", VectorizedEngine),
        ("neumf", "sgd", "vectorized", VectorizedEngine),
    ],
)
def test_settings_and_model_choose_the_engine(
    kind: Kind, optimizer: str, engine: str, chosen: type[Engine]
) -> None:
    assert type(Federation(kind, optimizer=optimizer, engine=engine).engine) is chosen


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
@pytest.mark.parametrize("kind", ["mf", "gmf", "neumf"])
@pytest.mark.parametrize(("optimizer", "batch_size"), [("sgd", 7), ("sgd", None), ("adam", 7)])
@EVERY_LOSS
def test_training_the_touched_rows_equals_training_the_whole_model(
    members: list[ClientData],
    train_plainly: "TrainPlainly",
    kind: Kind,
    loss: Loss,
    optimizer: str,
    engine: str,
    batch_size: int | None,
) -> None:
    federation = Federation(
        kind, loss=loss, optimizer=optimizer, engine=engine, batch_size=batch_size
    )
    learnt = federation.train(members)
    assert set(learnt) == {6, 2, 5, 9}
    for data in members:
        found, (model, expected_loss) = learnt[data.client], federation.plainly(data, train_plainly)
        assert found.loss == pytest.approx(expected_loss, rel=1e-4)
        for name in model.shared_names():
            ours = federation.shared[name] + found.change[name]
            assert_allclose(ours, value(model, name), rtol=1e-4, atol=1e-5)
        for name in model.personal_names():
            assert_allclose(found.personal[name], value(model, name), rtol=1e-4, atol=1e-5)


@EVERY_ENGINE
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weight_decay_pulls_the_touched_rows_at_every_step_and_no_others(
    members: list[ClientData],
    train_plainly: "TrainPlainly",
    engine: str,
    kind: Kind,
    optimizer: str,
) -> None:
    choices = {"optimizer": optimizer, "weight_decay": 0.1, "num_negatives": 1, "batch_size": 2}
    federation = Federation(kind, engine=engine, **choices)
    learnt = federation.train(members)
    for data in members:
        found, (model, _) = learnt[data.client], federation.plainly(data, train_plainly)
        for name in model.shared_names():
            rows = found.rows if name in model.item_rows else slice(None)
            ours = federation.shared[name] + found.change[name]
            assert_allclose(ours[rows], value(model, name)[rows], rtol=1e-4, atol=1e-5)
        for name in model.personal_names():
            assert_allclose(found.personal[name], value(model, name), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_dense_parameters_know_no_weight_decay(members: list[ClientData], engine: str) -> None:
    without, with_decay = (
        Federation("neumf", engine=engine, learning_rate=0.0, weight_decay=decay).train(members)
        for decay in (0.0, 9.0)
    )
    assert without[6].equals(with_decay[6])


@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_tables_and_dense_parameters_have_rates_of_their_own(
    members: list[ClientData], engine: str
) -> None:
    still_tables = Federation("neumf", engine=engine, learning_rate=0.0)
    still_dense = Federation("neumf", engine=engine, dense_learning_rate=0.0)
    by_dense, by_tables = still_tables.train(members)[6], still_dense.train(members)[6]
    for name in still_tables.shared:
        is_table = name in still_tables.model.item_rows
        assert by_dense.change[name].any() == (not is_table)
        assert by_tables.change[name].any() == is_table


@EVERY_ENGINE
def test_the_loss_is_the_mean_over_the_samples_as_they_were_met(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    still = {"learning_rate": 0.0, "dense_learning_rate": 0.0, "loss": "mse"}
    federation = Federation(kind, engine=engine, **still)
    learnt = federation.train(members)
    for data in members[:2]:
        model = make(kind, data.num_users, "mse")
        model.load(federation.everything | federation.personal(data.client))
        users, items = data.train.users(), data.train.item
        import torch

        scores = model(torch.from_numpy(users), torch.from_numpy(items.astype(np.int64)))
        expected = np.mean((scores.detach().numpy() - data.train.rating) ** 2)
        assert learnt[data.client].loss == pytest.approx(expected, rel=1e-5)


@EVERY_ENGINE
def test_the_update_says_how_much_and_which_rows(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    learnt = Federation(kind, engine=engine).train(members)
    for data in members:
        found = learnt[data.client]
        assert found.weight == len(data)
        assert found.rows.tolist() == sorted(set(found.rows.tolist()))
        assert set(data.train.item.tolist()) <= set(found.rows.tolist())
        moved = found.change["item_embedding.weight"].any(axis=1)
        assert np.flatnonzero(moved).tolist() == found.rows.tolist()


@EVERY_ENGINE
def test_a_rating_client_touches_the_items_it_rated_and_no_others(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    learnt = Federation(kind, engine=engine, loss="mse").train(members)
    for data in members:
        assert learnt[data.client].rows.tolist() == sorted(set(data.train.item.tolist()))


@EVERY_ENGINE
def test_a_client_learns_the_same_alone_and_among_others(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    federation = Federation(kind, engine=engine)
    together, reversed_ = federation.train(members), federation.train(members[::-1])
    for data in members:
        alone = federation.train([data])[data.client]
        for among in (together[data.client], reversed_[data.client]):
            assert among.loss == pytest.approx(alone.loss, rel=1e-6)
            for name in alone.change:
                assert_allclose(among.change[name], alone.change[name], rtol=1e-5, atol=1e-6)
            for name in alone.personal:
                assert_allclose(among.personal[name], alone.personal[name], rtol=1e-5, atol=1e-6)


@EVERY_ENGINE
def test_the_same_address_is_the_same_result_and_another_round_another(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    one, again = (Federation(kind, engine=engine).train(members) for _ in range(2))
    other = Federation(kind, engine=engine).train(members, round_=ROUND + 1)
    for client in (6, 2, 9):
        assert one[client].equals(again[client])
        assert not one[client].equals(other[client])


@EVERY_ENGINE
def test_the_global_parameters_stay_as_they_were(
    members: list[ClientData], engine: str, kind: Kind
) -> None:
    federation = Federation(kind, engine=engine)
    before = {name: array.copy() for name, array in federation.shared.items()}
    for array in federation.shared.values():
        array.setflags(write=False)  # as a message's memory may be
    federation.train(members)
    for name, array in before.items():
        assert_array_equal(federation.shared[name], array)


@EVERY_ENGINE
@EVERY_LOSS
def test_what_is_kept_personal_learns_the_same_as_what_is_shared(
    members: list[ClientData], engine: str, kind: Kind, loss: Loss
) -> None:
    sharing = Federation(kind, engine=engine, loss=loss)
    shared = sharing.train(members)
    kept = Federation(kind, engine=engine, loss=loss, shares=False).train(members)
    for client, found in kept.items():
        assert found.change == {}
        assert found.loss == pytest.approx(shared[client].loss, rel=1e-6)
        for name, change in shared[client].change.items():
            expected = sharing.shared[name] + change
            assert_allclose(found.personal[name], expected, rtol=1e-5, atol=1e-6)


@EVERY_ENGINE
@EVERY_LOSS
def test_a_loss_that_is_not_finite_names_client_and_round(
    members: list[ClientData], engine: str, kind: Kind, loss: Loss
) -> None:
    federation = Federation(kind, engine=engine, loss=loss, learning_rate=1e30, local_epochs=5)
    message = r"client 6, round 3: the loss is (nan|inf); lower training\.learning_rate"
    with pytest.raises(TrainingError, match=message):
        federation.train(members[:1])


@EVERY_ENGINE
@EVERY_LOSS
@pytest.mark.parametrize("batch_size", [7, None])
def test_a_client_that_trains_on_nothing_changes_nothing(
    members: list[ClientData], engine: str, kind: Kind, loss: Loss, batch_size: int | None
) -> None:
    federation = Federation(kind, engine=engine, loss=loss, batch_size=batch_size, weight_decay=0.1)
    nothing = [data for data in members if data.client == 5]
    found = federation.train(nothing)[5]
    assert found.weight == 0
    assert np.isfinite(found.loss)
    assert not any(change.any() for change in found.change.values())
    for name, before in federation.personal(5).items():
        assert_array_equal(found.personal[name], before)


def _largest(members: list[ClientData], kind: Kind) -> int:
    """A budget, per `memory_budget_mb`, that holds the largest client and not much more."""
    one = Federation(kind)
    needed = _bytes_needed(one.model, one.training, one.engine.sampler)
    return 1 + max(map(needed, members)) // one.training.memory_budget_mb


@pytest.mark.parametrize("kind", ["mf", "neumf"])
def test_how_many_clients_fit_into_memory_does_not_matter(
    members: list[ClientData], monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    whole = Federation(kind).train(members)
    monkeypatch.setattr("fedrec_flower.training.memory._MEGABYTE", _largest(members, kind))
    narrow = Federation(kind)
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
    monkeypatch.setattr("fedrec_flower.training.memory._MEGABYTE", 1)
    with pytest.raises(ConfigError, match=r"memory_budget_mb=64 allows less: raise it"):
        Federation("mf").train(members)

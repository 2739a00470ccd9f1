"""Laws of gradient corrections and inner steps: all trainers apply the same."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.gradient_correction import num_steps
from fedrec_flower.training.negative_sampling import Samples
from tests.helpers.one_round import NUM_ITEMS, ROUND, Kind, Learnt, Loss, Round, make, value

if TYPE_CHECKING:
    from tests.conftest import MakeClient

KINDS: list[Kind] = ["mf", "gmf", "neumf", "sasrec", "fedrecon"]
_ROUNDING = "Adam makes steps of the rounding where next to nothing is learnt"
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
EVERY_ENGINE = pytest.mark.parametrize("engine", ["sequential", "vectorized"])
EVERY_STEP = pytest.mark.parametrize(
    ("optimizer", "batch_size"), [("sgd", 7), ("sgd", None), ("adam", 7)]
)


@pytest.fixture
def members(make_client: "MakeClient") -> list[ClientData]:
    """Clients of several sizes: one of two users, one of one sample, one without data."""
    histories: dict[int, list[list[int]]] = {
        6: [[3, 8, 1, 12], [8, 20]],
        2: [[0, 9, 4]],
        5: [[]],
        9: [[8, 7, 6, 5, 4, 3, 2]],
    }
    return [
        make_client(
            train,
            ratings=[[[1.0 + item % 5 for item in own] for own in train], *[[[]] * len(train)] * 2],
            client=client,
        )
        for client, train in histories.items()
    ]


@dataclass(frozen=True)
class RandomTerms:
    """A `GradientCorrection` with another random linear term for every client."""

    proximal: float
    whole: Tensors  # the shared parameters, for their shapes
    tables: Collection[str]
    strength: float = 0.05

    def of(self, name: str, client: int) -> NDArray[np.float32]:
        """The linear term of one client, whole."""
        drawn = np.random.default_rng([client, len(name)]).normal(size=self.whole[name].shape)
        return (self.strength * drawn).astype(np.float32)

    def linear_term(self, layout: Updates) -> Tensors:
        """Lay out the clients' terms."""
        clients = layout.clients.tolist()
        rows = np.split(layout.rows, layout.offsets[1:-1])
        found: Tensors = {}
        for name in self.whole if self.strength else ():
            each = [self.of(name, client) for client in clients]
            if name in self.tables:
                pairs = zip(each, rows, strict=True)
                found[name] = np.concatenate([table[own] for table, own in pairs])
            else:
                found[name] = np.stack(each)
        return found


def random_terms(
    kind: Kind, proximal: float, loss: Loss = "bce", strength: float = 0.05
) -> RandomTerms:
    plain = Round(kind, loss=loss)
    return RandomTerms(proximal, plain.shared, plain.model.item_rows, strength)


def assert_equal_results(one: dict[int, Learnt], other: dict[int, Learnt]) -> None:
    for client, learnt in one.items():
        assert other[client].loss == pytest.approx(learnt.loss, rel=1e-5)
        for name, change in learnt.change.items():
            assert_allclose(other[client].change[name], change, rtol=2e-4, atol=2e-5)
        for name, own in learnt.personal.items():
            assert_allclose(other[client].personal[name], own, rtol=2e-4, atol=2e-5)


def length(learnt: Learnt) -> float:
    """Norm of a client's update."""
    return float(np.sqrt(sum(np.square(change).sum() for change in learnt.change.values())))


@EVERY_KIND
@EVERY_STEP
@pytest.mark.parametrize(("proximal", "strength"), [(0.3, 0.0), (0.0, 0.05), (0.4, 0.05)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_trainers_apply_the_same_correction(
    members: list[ClientData],
    kind: Kind,
    optimizer: str,
    batch_size: int | None,
    proximal: float,
    strength: float,
    weight_decay: float,
) -> None:
    words: dict[str, Any] = {
        "optimizer": optimizer,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
        # Norms of four tiny values grow the rounding of every step; few steps keep it small.
        "local_epochs": 1 if kind == "sasrec" and batch_size else 2,
    }
    if (kind, optimizer) == ("sasrec", "adam"):
        pytest.skip(_ROUNDING)
    guide = random_terms(kind, proximal, strength=strength)
    one, other = (
        Round(kind, engine=engine, guide=guide, **words).train(members)
        for engine in ("sequential", "vectorized")
    )
    assert_equal_results(one, other)
    without = Round(kind, **words).train(members)
    pairs = [(change, without[9].change[name]) for name, change in one[9].change.items()]
    assert any(np.abs(change - plain).max() > 1e-3 for change, plain in pairs)


@pytest.mark.parametrize("loss", ["bpr", "mse"])
@pytest.mark.parametrize("kind", ["mf", "gmf"])
def test_trainers_apply_the_same_correction_for_other_losses(
    members: list[ClientData], kind: Kind, loss: Loss
) -> None:
    guide = random_terms(kind, 0.2, loss)
    one, other = (
        Round(kind, engine=engine, guide=guide, loss=loss).train(members)
        for engine in ("sequential", "vectorized")
    )
    assert_equal_results(one, other)


@EVERY_KIND
@EVERY_ENGINE
def test_zero_correction_changes_no_bit(members: list[ClientData], kind: Kind, engine: str) -> None:
    guide = random_terms(kind, 0.0, strength=0.0)
    one, other = (Round(kind, engine=engine, guide=own).train(members) for own in (None, guide))
    assert all(learnt.equals(other[client]) for client, learnt in one.items())


@EVERY_KIND
@EVERY_ENGINE
def test_linear_term_moves_touched_rows_by_rate_times_term(
    members: list[ClientData], kind: Kind, engine: str
) -> None:
    words: dict[str, Any] = {"engine": engine, "batch_size": None, "local_epochs": 1}
    guide = random_terms(kind, 0.5)
    plain, pushed = (Round(kind, guide=own, **words) for own in (None, guide))
    one, other = plain.train(members), pushed.train(members)
    for client, rate in ((6, 1), (2, 1), (9, 1), (5, 0)):  # a client without data takes no step
        for name, change in one[client].change.items():
            table = name in plain.model.item_rows
            setting = plain.training
            by = rate * (setting.learning_rate if table else setting.dense_learning_rate)
            expected = np.zeros_like(change)
            rows = one[client].rows if table else slice(None)
            expected[rows] = -by * guide.of(name, client)[rows]
            rounding = np.spacing(np.abs(change).max(initial=1e-6))  # of the subtraction
            found = other[client].change[name] - change
            assert_allclose(found, expected, rtol=1e-4, atol=1e-6 + rounding)
        for name, own in one[client].personal.items():
            assert_array_equal(other[client].personal[name], own)


@EVERY_KIND
@EVERY_ENGINE
def test_larger_proximal_factor_gives_shorter_updates(
    members: list[ClientData], kind: Kind, engine: str
) -> None:
    words: dict[str, Any] = {"engine": engine, "local_epochs": 6, "batch_size": None}
    rounds = [
        Round(kind, guide=random_terms(kind, proximal, strength=0.0), **words).train(members)
        for proximal in (0.0, 0.1, 0.4, 1.0)
    ]
    for client in (6, 2, 9):
        lengths = [length(learnt[client]) for learnt in rounds]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[-1] < 0.5 * lengths[0]


def test_num_steps_counts_per_parameter() -> None:
    def samples(*sizes: int) -> Samples:
        offsets = np.cumsum([0, *sizes])
        rows = np.zeros(offsets[-1], np.int64)
        return Samples(offsets, rows, rows[:, None], rows.astype(np.float32), None)

    both, one = [frozenset("ab")], [frozenset("a"), frozenset("b"), frozenset("b")]
    epochs = [samples(7, 4, 0), samples(7, 4, 0)]
    counts = num_steps(3, epochs, [both, one], "ab")
    # Three and two batches per epoch; each batch of the second updates "b" twice.
    assert counts["a"].tolist() == [3 + 3, 2 + 2, 0]
    assert counts["b"].tolist() == [3 + 2 * 3, 2 + 2 * 2, 0]
    assert num_steps(None, epochs, [both, one], "a")["a"].tolist() == [2, 2, 0]


# --- inner steps ------------------------------------------------------------------------------


@EVERY_KIND
@EVERY_STEP
def test_trainers_take_the_same_inner_steps(
    members: list[ClientData], kind: Kind, optimizer: str, batch_size: int | None
) -> None:
    if (kind, optimizer) == ("sasrec", "adam"):
        pytest.skip(_ROUNDING)
    words: dict[str, Any] = {"optimizer": optimizer, "batch_size": batch_size, "weight_decay": 0.05}
    one, other = (
        Round(kind, engine=engine, maml_step=0.7, num_negatives=2, **words).train(members)
        for engine in ("sequential", "vectorized")
    )
    assert_equal_results(one, other)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_inner_steps_work_with_batches_of_odd_size(
    members: list[ClientData], batch_size: int
) -> None:
    words: dict[str, Any] = {"batch_size": batch_size, "num_negatives": 1, "local_epochs": 1}
    one, other = (
        Round("mf", engine=engine, maml_step=0.7, **words).train(members)
        for engine in ("sequential", "vectorized")
    )
    assert_equal_results(one, other)
    if batch_size == 1:  # a single sample has no first half
        assert_equal_results(one, Round("mf", **words).train(members))


@EVERY_ENGINE
@pytest.mark.parametrize("maml_step", [0.0, 1.5])
def test_gradient_after_the_inner_step_is_applied_before_it(
    members: list[ClientData], engine: str, maml_step: float
) -> None:
    words: dict[str, Any] = {"local_epochs": 1, "batch_size": None}
    round_ = Round("mf", engine=engine, maml_step=maml_step, **words)
    learnt, data = round_.train(members)[9], members[3]
    model, rate = make("mf", 1, "bce"), round_.training.learning_rate
    began = {**round_.everything, **round_.personal(9)}
    cohort = Cohort.gather([data], spare_held_out=False)
    samples = round_.engine.sampler.draw(cohort, ROUND, 0)
    user, item, target = map(torch.from_numpy, (samples.user, samples.item[:, 0], samples.target))
    half = len(target) // 2

    def slopes(part: slice) -> Tensors:
        model.zero_grad()
        scores = torch.sigmoid(model(user[part], item[part]))
        torch.autograd.backward(torch.nn.functional.binary_cross_entropy(scores, target[part]))
        return {n: p.grad.numpy().copy() for n, p in model.named_parameters() if p.grad is not None}

    model.load({name: array.copy() for name, array in began.items()})
    first = slopes(slice(0, half))
    ahead = {n: array - np.float32(maml_step * rate) * first[n] for n, array in began.items()}
    model.load(ahead)
    second = slopes(slice(half, None))
    assert value(model, "item_embedding.weight").shape == (NUM_ITEMS, 4)
    for name, change in learnt.change.items():
        assert_allclose(change, -rate * second[name], rtol=1e-4, atol=1e-6)
    for name, own in learnt.personal.items():
        assert_allclose(own, began[name] - rate * second[name], rtol=1e-4, atol=1e-6)

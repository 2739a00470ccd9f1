"""No update may spoil the model: what is left is finite, and exactly what the good ones give."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.updates import (
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.federation.client.update_pipeline import (
    LimitsStep,
    MessageFaultsStep,
    TrainContext,
    UpdatePipeline,
)
from fedrec_flower.privacy.mechanism import NoPrivacy
from fedrec_flower.threats.faults import FaultModel, MalformedReply, NoFaults
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import Trained

NUM_ITEMS, WIDTH = 12, 3
LIMITS = Limits(weight=50.0, value=1e3)
TABLES = frozenset({"item", "bias"})
SHAPES = {"item": (NUM_ITEMS, WIDTH), "bias": (NUM_ITEMS, 1), "dense": (2, 2)}

AWFUL_VALUES = st.sampled_from([np.nan, np.inf, -np.inf, 1e30, -1e30, 1.001e3, 3.4e38])
AWFUL_WEIGHTS = st.sampled_from([-1.0, -1e30, 0.0, 50.01, 1e300, np.nan, np.inf, -np.inf])
PLACES = st.integers(0, 10_000)  # of a value, counted round


@dataclass(frozen=True)
class Spoilt:
    """What becomes of one client's update: each is drawn, most clients are left alone."""

    tensor: str = ""
    place: int = 0
    value: float = 0.0
    weight: float | None = None
    odd: MalformedReply | None = None

    @property
    def bad(self) -> bool:
        return bool(self.tensor) or self.weight is not None or self.odd is not None


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[Updates, list[Spoilt]]:
    """Honest updates of several clients, and what becomes of them."""
    count = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    own = [np.sort(rng.choice(NUM_ITEMS, rng.integers(1, 6), replace=False)) for _ in range(count)]
    offsets = np.cumsum([0, *map(len, own)])
    scale = draw(st.sampled_from([1e-6, 1.0, 200.0]))
    tensors = {
        name: rng.normal(
            size=(offsets[-1] if name in TABLES else count, *(s[1:] if name in TABLES else s))
        )
        for name, s in SHAPES.items()
    }
    sound = {name: np.clip(v * scale, -999, 999).astype(np.float32) for name, v in tensors.items()}
    updates = Updates(
        rng.choice(100, count, replace=False),
        rng.integers(1, 51, count).astype(np.float64),
        offsets,
        np.concatenate(own),
        sound,
    )
    return updates, [draw(fates(updates, place)) for place in range(count)]


@st.composite
def fates(draw: st.DrawFn, updates: Updates, place: int) -> Spoilt:
    """One client's lot."""
    lot = draw(st.sampled_from(["sound", "sound", "sound", "value", "weight", "odd"]))
    if lot == "value":
        return Spoilt(draw(st.sampled_from(sorted(SHAPES))), draw(PLACES), draw(AWFUL_VALUES))
    if lot == "weight":
        return Spoilt(weight=draw(AWFUL_WEIGHTS))
    if lot == "odd":
        one = updates.select(np.array([place]), TABLES).tensors
        tensors = {name: v if name in TABLES else v[0] for name, v in one.items()}
        first = tensors["item"]
        wrong = draw(
            st.sampled_from(
                [
                    {},  # nothing at all
                    {"other": first},
                    {name: v for name, v in tensors.items() if name != "bias"},
                    tensors | {"extra": first},
                    tensors | {"item": np.concatenate([first, first])},  # other rows
                    tensors | {"item": first[:, :-1]},
                    tensors | {"item": first[None]},
                    tensors | {"dense": tensors["dense"][0]},
                ]
            )
        )
        client = int(updates.clients[place])
        return Spoilt(
            odd=MalformedReply(client, float(updates.weights[place]), wrong, duplicate=False)
        )
    return Spoilt()


@dataclass(frozen=True)
class Mischief(NoFaults):
    """A world in which exactly this happens."""

    lots: dict[int, Spoilt]

    @override
    def corrupt(
        self, updates: Updates, tables: Collection[str], round_: int, attempt: int
    ) -> tuple[Updates, list[MalformedReply]]:
        tensors = {name: value.copy() for name, value in updates.tensors.items()}
        weights, odd, whole = updates.weights.copy(), [], []
        for place, client in enumerate(updates.clients.tolist()):
            lot = self.lots[client]
            if lot.odd is not None:
                odd.append(lot.odd)
                continue
            whole.append(place)
            if lot.weight is not None:
                weights[place] = lot.weight
            if lot.tensor:
                owner = updates.owners if lot.tensor in tables else np.arange(len(weights))
                own = np.flatnonzero(owner == place)
                flat = tensors[lot.tensor].reshape(len(owner), -1)
                flat[own[lot.place % len(own)], lot.place % flat.shape[1]] = lot.value
        spoilt = replace(updates, weights=weights, tensors=tensors)
        return spoilt.select(np.array(whole, np.int64), tables), odd


def pipeline(faults: FaultModel, *, individual: bool) -> UpdatePipeline:
    return UpdatePipeline(
        steps=[MessageFaultsStep(faults, LIMITS), LimitsStep(LIMITS)],
        mechanism=NoPrivacy(),
        tables=TABLES,
        names=sorted(SHAPES),
        sends_individual_updates=individual,
        limits=LIMITS,
    )


def send(steps: UpdatePipeline, updates: Updates) -> TrainResult:
    """Pass the updates of a chunk of clients through the pipeline."""
    result = steps.empty_result(GIVEN, NUM_ITEMS)
    steps.add(trained(updates), result, TrainContext(1, 0, np.inf, GIVEN))
    return result


def trained(updates: Updates) -> Trained:
    """A chunk of clients that learnt these updates."""
    count, sizes = len(updates.clients), updates.weights.astype(np.int64)
    cohort = Cohort(
        clients=updates.clients,
        first_users=np.arange(count),
        user_offsets=np.arange(count + 1),
        offsets=np.concatenate([[0], np.cumsum(sizes)]),
        user=np.repeat(np.arange(count), sizes),
        item=np.zeros(sizes.sum(), np.int64),
        rating=None,
        known_user=np.zeros(0, np.int64),
        known_item=np.zeros(0, np.int64),
        attributes=np.zeros((count, 0), np.float32),
    )
    touched = ActiveRows(updates.offsets, updates.rows, [])
    return Trained(cohort, touched, updates, {}, np.linspace(0.1, 0.9, count), {}, {})


GIVEN = Versions.single({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})


@given(cohorts())
def test_every_aggregate_is_finite_and_exactly_that_of_the_good_clients(
    cohort: tuple[Updates, list[Spoilt]],
) -> None:
    updates, lots = cohort
    by_client = dict(zip(updates.clients.tolist(), lots, strict=True))
    way = pipeline(Mischief(by_client), individual=False)
    answer = send(way, updates)
    good = np.flatnonzero([not lot.bad for lot in lots])
    alone = UpdateSum.zeros(SHAPES, NUM_ITEMS)
    alone.add(updates.select(good, TABLES), TABLES)
    total = answer.total
    assert total is not None
    assert set(answer.failures) == {client for client, lot in by_client.items() if lot.bad}
    assert answer.replied == len(good)
    assert total.weight == alone.weight
    assert_array_equal(total.row_weight, alone.row_weight)
    assert_same(total.tensors, alone.tensors)
    if len(good):
        assert_same(mean_over_all_clients(total), mean_over_all_clients(alone))
        by_row = (mean_over_touching_clients(one, TABLES) for one in (total, alone))
        assert_same(*by_row)


@given(cohorts())
def test_side_by_side_only_the_good_clients_arrive(cohort: tuple[Updates, list[Spoilt]]) -> None:
    updates, lots = cohort
    way = pipeline(
        Mischief(dict(zip(updates.clients.tolist(), lots, strict=True))), individual=True
    )
    answer = send(way, updates)
    good = np.flatnonzero([not lot.bad for lot in lots])
    expected = updates.select(good, TABLES)
    (arrived,) = answer.parts
    assert_array_equal(arrived.clients, expected.clients)
    assert_array_equal(arrived.weights, expected.weights)
    assert_array_equal(arrived.rows, expected.rows)
    assert_same(arrived.tensors, expected.tensors)
    assert_array_equal(answer.part_losses[0], np.linspace(0.1, 0.9, len(lots))[good])


@given(cohorts())
def test_screening_sound_updates_changes_no_bit_and_copies_nothing(
    cohort: tuple[Updates, list[Spoilt]],
) -> None:
    updates, _ = cohort
    assert LIMITS.violations(updates, TABLES) == {}
    way = pipeline(NoFaults(), individual=True)
    answer = send(way, updates)
    assert answer.parts[0] is updates
    assert answer.failures == {}


@given(cohorts(), st.data())
def test_the_reason_names_what_is_wrong(
    cohort: tuple[Updates, list[Spoilt]], data: st.DataObject
) -> None:
    updates, _ = cohort
    place = data.draw(st.integers(0, len(updates.clients) - 1))
    lot = data.draw(fates(updates, place))
    lots = {int(c): Spoilt() for c in updates.clients} | {int(updates.clients[place]): lot}
    way = pipeline(Mischief(lots), individual=False)
    answer = send(way, updates)
    kinds = {failure.kind for failure in answer.failures.values()}
    if lot.tensor:
        assert kinds == {"huge" if np.isfinite(np.float32(lot.value)) else "not_finite"}
    elif lot.weight is not None:
        assert kinds == {"wrong_weight"}
    elif lot.odd is not None:
        names = lot.odd.tensors.keys() != SHAPES.keys()
        assert kinds == {"wrong_names" if names else "wrong_shape"}


def test_a_client_that_learnt_from_nothing_is_sound() -> None:
    nothing = np.zeros((1, 2, 2), np.float32)
    rows = {"item": np.zeros((0, WIDTH), "f"), "bias": np.zeros((0, 1), "f"), "dense": nothing}
    offsets = np.zeros(2, np.int64)
    updates = Updates(np.array([7]), np.zeros(1), offsets, np.zeros(0, np.int64), rows)
    assert LIMITS.violations(updates, TABLES) == {}


def assert_same(
    one: dict[str, NDArray[np.float64]] | dict[str, NDArray[np.float32]],
    other: dict[str, NDArray[np.float64]] | dict[str, NDArray[np.float32]],
) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert np.isfinite(value).all()
        assert_array_equal(value, other[name])

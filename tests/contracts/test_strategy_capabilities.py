"""Contract of every strategy of `conf/strategy`: its declared capabilities hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.core.instantiate import build
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.models.mf import MF
from fedrec_flower.models.popularity import Popularity
from fedrec_flower.strategies.base import (
    VERSIONS,
    FederatedStrategy,
    FederationInfo,
    RoundInfo,
)
from fedrec_flower.strategies.fedopt import FedOpt
from tests.helpers.conf_yamls import content

CONF = Path(__file__).parents[2] / "conf" / "strategy"
YAMLS = sorted(CONF.glob("*.yaml"))
EVERY_STRATEGY = pytest.mark.parametrize("name", [path.stem for path in YAMLS])
NUM_CLIENTS, NUM_ITEMS = 12, 20


def make_strategy(name: str) -> tuple[FederatedStrategy, Tensors]:
    """Return a strategy of `conf` and the initial parameters of a small model."""
    model: Any
    if name == "sums":
        model = Popularity(1, NUM_ITEMS)
    else:
        model = MF(1, NUM_ITEMS, None, "ranking", embedding_dim=4, init_std=0.1)
    info = FederationInfo(
        seed=1,
        num_clients=NUM_CLIENTS,
        num_items=NUM_ITEMS,
        num_examples=np.full(NUM_CLIENTS, 10),
        clients_per_round=NUM_CLIENTS,
        item_tables=frozenset(model.item_rows),
        model=model,
        optimizer="sgd",
        learning_rate=0.1,
        max_client_weight=10.0,
        flip_rate=0.0,
    )
    node = content(CONF / f"{name}.yaml")
    node.pop("defaults", None)
    if "aggregation" in node:
        node["aggregation"] = "all_clients"
    strategy: FederatedStrategy = build("strategy", node, info=info)
    names = model.shared_names() if strategy.communicates else []
    return strategy, model.initial(names, np.random.default_rng(1))


def make_sum(initial: Tensors) -> UpdateSum:
    """Return a sum of updates in which every row was touched."""
    rng = np.random.default_rng(2)
    total = UpdateSum.zeros({name: value.shape for name, value in initial.items()}, NUM_ITEMS)
    for name, value in initial.items():
        total.tensors[name] += rng.normal(size=value.shape)
    total.weight = 20.0
    total.row_weight[:] = 10.0
    return total


@EVERY_STRATEGY
def test_uses_only_the_sum_depends_on_no_other_fact_of_the_clients(name: str) -> None:
    strategy, initial = make_strategy(name)
    if not strategy.uses_only_the_sum or name == "sums":  # a sum of statistics is of other shapes
        return
    assert not strategy.needs_individual_updates
    assert not strategy.asynchronous
    results = []
    for num_replied in (0, 1, NUM_CLIENTS):
        strategy, initial = make_strategy(name)
        parameters = strategy.initialize(initial)
        results.append(strategy.apply_sum(parameters, make_sum(initial), RoundInfo(1, num_replied)))
    for tensor, value in results[0].items():
        assert_array_equal(results[1][tensor], value)
        assert_array_equal(results[2][tensor], value)


@EVERY_STRATEGY
def test_models_per_client_holds_if_and_only_if_initial_parameters_have_versions(name: str) -> None:
    strategy, initial = make_strategy(name)
    assert (VERSIONS in strategy.initialize(initial)) == strategy.models_per_client


@EVERY_STRATEGY
def test_sends_extra_tensors_holds_if_and_only_if_there_are_some(name: str) -> None:
    strategy, initial = make_strategy(name)
    strategy.initialize(initial)
    assert bool(strategy.extra_tensors()) == strategy.sends_extra_tensors


@EVERY_STRATEGY
def test_asynchronous_holds_if_and_only_if_clients_are_scheduled(name: str) -> None:
    strategy, initial = make_strategy(name)
    parameters = strategy.initialize(initial)
    if strategy.asynchronous:
        clients, _ = strategy.schedule(parameters, 1)
        assert len(clients) == strategy.replies_per_round
    else:
        with pytest.raises(NotImplementedError):
            strategy.schedule(parameters, 1)


@EVERY_STRATEGY
def test_needs_individual_updates_holds_if_and_only_if_they_are_aggregated(name: str) -> None:
    strategy, initial = make_strategy(name)
    parameters = strategy.initialize(initial)
    rng = np.random.default_rng(3)
    clients = np.arange(NUM_CLIENTS)
    tensors: dict[str, Any] = {
        tensor: rng.normal(size=(NUM_CLIENTS * NUM_ITEMS, *value.shape[1:])).astype(np.float32)
        for tensor, value in initial.items()
    }
    updates = Updates(
        clients,
        np.ones(NUM_CLIENTS),
        np.arange(NUM_CLIENTS + 1) * NUM_ITEMS,
        np.tile(np.arange(NUM_ITEMS), NUM_CLIENTS),
        tensors,
    )
    losses = np.ones(NUM_CLIENTS)
    if strategy.needs_individual_updates:
        moved = strategy.apply_updates(parameters, updates, losses, RoundInfo(1, NUM_CLIENTS))
        assert moved.keys() == parameters.keys()
    else:
        with pytest.raises(NotImplementedError):
            strategy.apply_updates(parameters, updates, losses, RoundInfo(1, NUM_CLIENTS))


def test_class_that_aggregates_single_updates_must_not_declare_the_sum_alone() -> None:
    with pytest.raises(TypeError, match=r"declares uses_only_the_sum and defines aggregate"):

        class Aggregating(FederatedStrategy):
            uses_only_the_sum: ClassVar[bool] = True

            def aggregate(self, updates: Updates, shapes: Any) -> Tensors:
                raise NotImplementedError


def test_class_that_inherits_the_sum_alone_and_changes_its_use_must_declare_it_again() -> None:
    with pytest.raises(TypeError, match=r"inherits uses_only_the_sum and overrides apply_sum"):

        class Changed(FedOpt):
            def apply_sum(
                self, parameters: Tensors, total: UpdateSum, round_: RoundInfo
            ) -> Tensors:
                total = replace(total, weight=float(round_.num_replied))
                return super().apply_sum(parameters, total, round_)

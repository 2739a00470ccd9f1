"""Laws of every strategy that has a yaml. New yamls are found without an edit."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hydra.utils import get_class
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import settings_of
from fedrec_flower.data.interactions import Part
from fedrec_flower.strategies.base import FederatedStrategy
from tests.helpers.conf_yamls import content

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

CONF = Path(__file__).parents[2] / "conf" / "strategy"
YAMLS = sorted(CONF.glob("*.yaml"))
EVERY_YAML = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
# Models that each strategy can train; "" is the default.
MODELS = {"": ("mf", "ncf"), "sums": ("ials", "popularity")}
INJECTED = {"info"}


def models(path: Path) -> tuple[str, ...]:
    return MODELS.get(path.stem, MODELS[""])


@EVERY_YAML
def test_yaml_gives_every_argument_and_is_the_only_home_of_defaults(path: Path) -> None:
    config = content(path)
    arguments = settings_of(get_class(config["_target_"]))
    assert config["name"] == path.stem
    assert set(config) - {"_target_", "name", "defaults"} == set(arguments) - INJECTED
    assert set(arguments) >= INJECTED
    assert all(argument.default is inspect.Parameter.empty for argument in arguments.values())


@EVERY_YAML
def test_strategy_extends_the_base_class(path: Path) -> None:
    chosen = get_class(content(path)["_target_"])
    assert issubclass(chosen, FederatedStrategy)


@pytest.mark.parametrize(
    ("path", "model"),
    [pytest.param(p, m, id=f"{p.stem}-{m}") for p in YAMLS for m in models(p)],
)
def test_strategy_trains_evaluates_and_ends_with_finite_parameters(
    federate: "Federate", path: Path, model: str
) -> None:
    ran = federate(f"strategy={path.stem}", f"model={model}", "clients_per_round=10")
    assert list(ran.watcher.losses) == [1, 2, 3]
    assert list(ran.watcher.metrics) == [0, 3]
    assert all(np.isfinite(value) for value in ran.metric_table().values())
    assert all(np.isfinite(value).all() for value in ran.shared.values())
    assert ran.outcome.rounds_participated.sum() == 3 * ran.strategy.replies_per_round
    assert set(ran.outcome.selected.metrics) == {Part.VALIDATION, Part.TEST}


@EVERY_YAML
def test_shared_parameters_start_at_the_seeded_values_and_move(
    federate: "Federate", path: Path
) -> None:
    ran = federate(f"strategy={path.stem}", f"model={models(path)[-1]}")
    initial = ran.setup.initial(ran.strategy)
    begun = ran.strategy.initialize(initial)  # possibly several versions
    assert set(ran.shared) == set(begun)
    shared_names = ran.setup.model.shared_names() if ran.strategy.communicates else []
    assert set(initial) == set(shared_names)
    assert set(ran.personal) == {n for n, _ in ran.setup.model.named_parameters()} - set(initial)
    for name in initial:
        assert begun[name].shape == ran.shared[name].shape
        assert not np.array_equal(begun[name], ran.shared[name])


@EVERY_YAML
def test_same_seed_gives_the_same_run_and_another_seed_another(
    federate: "Federate", path: Path
) -> None:
    chosen = (f"strategy={path.stem}", f"model={models(path)[0]}")
    partial = (*chosen, "clients_per_round=10", "evaluation.num_clients=12")
    one, again, other = (federate(*partial, f"seed={seed}") for seed in (1, 1, 2))
    assert one.metric_table() == again.metric_table()
    assert_array_equal(list(one.watcher.losses.values()), list(again.watcher.losses.values()))
    for name, value in one.shared.items():
        assert_array_equal(value, again.shared[name])
    for name, value in one.personal.items():
        assert_array_equal(value, again.personal[name])
    assert one.metric_table() != other.metric_table()


@EVERY_YAML
@pytest.mark.parametrize("num_nodes", [3, 24])
def test_hosting_does_not_change_the_result(
    federate: "Federate", path: Path, num_nodes: int
) -> None:
    chosen = (f"strategy={path.stem}", f"model={models(path)[0]}")
    partial = (*chosen, "clients_per_round=10", "evaluation.num_clients=12")
    one, many = (federate(*partial, f"federation.num_nodes={nodes}") for nodes in (1, num_nodes))
    for key, value in one.metric_table().items():
        assert many.metric_table()[key] == pytest.approx(value, abs=1e-5)
    for name, tensor in one.shared.items():
        assert_allclose(many.shared[name], tensor, rtol=1e-5, atol=1e-5)
    for name, tensor in one.personal.items():
        assert_allclose(many.personal[name], tensor, rtol=1e-5, atol=1e-5)


@EVERY_YAML
def test_misspelt_option_is_an_error_with_the_known_options(
    federate: "Federate", path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.agregation does not exist: "):
        federate(f"strategy={path.stem}", "+strategy.agregation=all_clients")

"""What every strategy named by a yaml must do; a new one is found here with no edit."""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hydra.utils import get_class
from numpy.testing import assert_allclose, assert_array_equal
from omegaconf import OmegaConf

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.interactions import Part
from fedrec_flower.strategies.base import FederatedStrategy

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

CONF = Path(__file__).parents[2] / "conf" / "strategy"
YAMLS = sorted(CONF.glob("*.yaml"))
EVERY_YAML = pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.stem)
# What each strategy can move; "" speaks for all that average what training changed.
MODELS = {"": ("mf", "ncf"), "sums": ("ials", "popularity")}
INJECTED = {"info"}


def load(path: Path) -> dict[str, Any]:
    """The yaml's keys and values."""
    content = OmegaConf.to_container(OmegaConf.load(path))  # some values follow from the whole
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def models(path: Path) -> tuple[str, ...]:
    return MODELS.get(path.stem, MODELS[""])


@EVERY_YAML
def test_the_yaml_gives_every_argument_and_is_the_only_home_of_defaults(path: Path) -> None:
    config = load(path)
    arguments = inspect.signature(get_class(config["_target_"])).parameters
    assert config["name"] == path.stem
    assert set(config) - {"_target_", "name"} == set(arguments) - INJECTED
    assert set(arguments) >= INJECTED
    assert all(argument.default is inspect.Parameter.empty for argument in arguments.values())


@EVERY_YAML
def test_it_extends_the_base_class_of_strategies(path: Path) -> None:
    chosen = get_class(load(path)["_target_"])
    assert issubclass(chosen, FederatedStrategy)


@pytest.mark.parametrize(
    ("path", "model"),
    [pytest.param(p, m, id=f"{p.stem}-{m}") for p in YAMLS for m in models(p)],
)
def test_it_trains_evaluates_and_ends_with_finite_parameters(
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
def test_what_it_shares_begins_at_the_seeded_values_and_moves(
    federate: "Federate", path: Path
) -> None:
    ran = federate(f"strategy={path.stem}", f"model={models(path)[-1]}")
    initial = ran.setup.initial(ran.strategy)
    begun = ran.strategy.initialize(initial)  # several versions of it, maybe
    assert set(ran.shared) == set(begun)
    shared_names = ran.setup.model.shared_names() if ran.strategy.communicates else []
    assert set(initial) == set(shared_names)
    assert set(ran.personal) == {n for n, _ in ran.setup.model.named_parameters()} - set(initial)
    for name in initial:
        assert begun[name].shape == ran.shared[name].shape
        assert not np.array_equal(begun[name], ran.shared[name])


@EVERY_YAML
def test_the_same_seed_is_the_same_run_and_another_seed_another(
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
def test_who_hosts_whom_does_not_matter(federate: "Federate", path: Path, num_nodes: int) -> None:
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
def test_a_misspelt_option_names_its_neighbour_or_the_known_ones(
    federate: "Federate", path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"strategy\.agregation does not exist: "):
        federate(f"strategy={path.stem}", "+strategy.agregation=all_clients")

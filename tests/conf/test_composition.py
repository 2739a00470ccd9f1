"""Every combination of choices composes, and later words win over earlier ones."""

from collections.abc import Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from fedrec_flower.core.instantiate import build
from fedrec_flower.data.prepared import DatasetInfo
from fedrec_flower.experiment.composition import CONF, compose
from fedrec_flower.federation.client.app import app
from fedrec_flower.federation.components import build_evaluator, build_model
from fedrec_flower.federation.transport.in_process import InProcessGrid
from fedrec_flower.strategies.base import FederationInfo

# Files of these groups set values of other groups, so their choices interact.
INTERACTING = ("model", "task", "federation")
SEPARATE = (
    *("dataset", "split", "partition", "strategy", "faults", "compression", "evaluation"),
    *("attack", "privacy", "secure_aggregation"),
)
GROUPS = (*SEPARATE, *INTERACTING)
CHOICES = {group: sorted(p.stem for p in (CONF / group).glob("*.yaml")) for group in GROUPS}
# Releases of MovieLens differ in their name alone: one represents all.
CHOICES["dataset"] = [n for n in CHOICES["dataset"] if n == "ml-1m" or not n.startswith("ml-")]
RANKS_ONLY = {"sasrec", "gru4rec", "two_tower", "hybrid", "multvae"}
LIMITED = {"privacy", "secure_aggregation"}  # not every other choice may go with them
NEEDED = {  # choices that cannot do without more
    "file": ["dataset.path=ratings.csv"],
    "scaffold": ["training.optimizer=sgd"],
    "feddyn": ["training.optimizer=sgd"],
}

Choice = dict[str, str]
Pairs = set[tuple[tuple[str, str], tuple[str, str]]]


def pairwise(groups: tuple[str, ...]) -> list[Choice]:
    """Few combinations in which any two choices of two groups meet, chosen greedily."""
    missing: Pairs = {
        ((one, first), (two, second))
        for one, two in combinations(groups, 2)
        for first, second in product(CHOICES[one], CHOICES[two])
    }
    rows = []
    while missing:
        row: Choice = dict(min(missing))
        for group in groups:
            options = [row | {group: name} for name in CHOICES[group]]
            row = row if group in row else max(options, key=lambda r: len(pairs(r) & missing))
        missing -= pairs(row)
        rows.append(row)
    return rows


def pairs(row: Choice) -> Pairs:
    return set(combinations([(group, row[group]) for group in GROUPS if group in row], 2))


def each_once() -> list[Choice]:
    """Combinations in which every choice of the separate groups occurs."""
    longest = max(len(CHOICES[group]) for group in SEPARATE)
    return [
        {group: CHOICES[group][place % len(CHOICES[group])] for group in SEPARATE}
        for place in range(longest)
    ]


def composed(*overrides: str) -> dict[str, Any]:
    return compose(list(overrides))[0]


def made(config: dict[str, Any]) -> Iterator[Any]:
    """Every object that the configuration describes; none of them touches data."""
    info = DatasetInfo(30, (1.0, 5.0), np.ones((30, 2), np.float32), num_attributes=3)
    task = config["task"]
    yield build_evaluator(config["evaluation"], info, task)
    if config["model"]["name"] in RANKS_ONLY:  # they refuse to rate
        task = "ranking"
    model = build_model(config["model"], info, task)
    yield model
    if config["strategy"]["name"] == "sums":  # it refuses what is trained by gradients
        model = build_model(composed("model=popularity")["model"], info, task)
    federation = FederationInfo(
        seed=1,
        num_clients=943,  # of MovieLens-100K, which experiments name
        num_items=30,
        num_examples=np.full(943, 10),
        clients_per_round=20,
        item_tables=frozenset(),
        model=model,
        optimizer=config["training"]["optimizer"],
        learning_rate=config["training"]["learning_rate"],
        max_client_weight=10.0,
        flip_rate=0.0,
    )
    yield build("strategy", config["strategy"], info=federation)
    if config["federation"]["name"] == "deployment":
        yield build("federation", config["federation"], grid=InProcessGrid(app, 1))
    else:
        yield build("federation", {**config["federation"], "num_nodes": 1})
    yield build("faults", config["faults"], seed=1, num_clients=30, num_items=30)
    yield build("compression", config["compression"], num_items=30)
    yield build("secure_aggregation", config["secure_aggregation"], client_weight=30.0)
    for group in ("dataset", "split", "partition", "training", "privacy"):
        yield build(group, config[group])


def overrides_of(choice: Choice) -> list[str]:
    more = [word for name in choice.values() for word in NEEDED.get(name, ())]
    return [f"{group}={name}" for group, name in choice.items()] + more


def check_composition(choice: Choice) -> None:
    config = composed(*overrides_of(choice))
    labels = {group: config[group]["name"] for group in choice if group != "task"}
    assert labels | ({"task": config["task"]} if "task" in choice else {}) == choice
    assert all(part is not None for part in made(config))


@pytest.mark.parametrize("choice", each_once(), ids=lambda choice: choice["strategy"])
def test_every_choice_composes_and_builds(choice: Choice) -> None:
    check_composition(choice)


@pytest.mark.parametrize("model", CHOICES["model"])
def test_choices_of_interacting_groups_compose_and_build(model: str) -> None:
    for choice in pairwise(INTERACTING):
        if choice["model"] == model:
            check_composition(choice)


@pytest.mark.slow
@pytest.mark.parametrize("dataset", CHOICES["dataset"])
def test_any_two_choices_of_all_groups_compose_and_build(dataset: str) -> None:
    for choice in pairwise(tuple(group for group in GROUPS if group not in LIMITED)):
        if choice["dataset"] == dataset:
            check_composition(choice)


@pytest.mark.parametrize("model", CHOICES["model"])
def test_rating_task_sets_split_evaluation_and_loss(model: str) -> None:
    ranking, rating = (composed(f"model={model}", f"task={task}") for task in CHOICES["task"])
    assert (ranking["evaluation"]["name"], rating["evaluation"]["name"]) == ("ranking", "rating")
    assert rating["split"]["name"] == "random_global"
    assert rating["training"]["loss"] == "mse"


@pytest.mark.parametrize("model", ["mf", "ease", "gru4rec"])  # a loop, a closed form, histories
@pytest.mark.parametrize("task", CHOICES["task"])
def test_centralized_has_one_client_for_every_model_and_task(model: str, task: str) -> None:
    config = composed("federation=centralized", f"model={model}", f"task={task}")
    assert config["partition"]["name"] == "single"
    assert config["clients_per_round"] is None
    assert config["federation"]["num_nodes"] == 1
    # One client's update is the whole step: the server must not bend it.
    assert config["strategy"]["name"] == "centralized"
    assert config["training"]["optimizer"] == "adam"
    assert config["training"]["batch_size"] == 4096


def test_mode_centralized_equals_federation_centralized() -> None:
    words = ["model=ncf", "task=rating", "output_dir=run"]
    mode, federation = (
        composed(f"{choice}=centralized", *words) | {"overrides": words}
        for choice in ("mode", "federation")
    )
    assert mode == federation


def test_command_line_overrides_centralized() -> None:
    words = ("partition=silo_random", "strategy=fedadam", "training.learning_rate=3.0")
    config = composed("federation=centralized", *words, "clients_per_round=2")
    assert config["partition"]["name"] == "silo_random"
    assert config["strategy"]["name"] == "fedadam"
    assert config["training"]["learning_rate"] == 3.0
    assert config["clients_per_round"] == 2


def test_experiment_overrides_defaults_and_command_line_overrides_both() -> None:
    plain, smoke = composed(), composed("experiment=smoke")
    assert smoke["num_rounds"] != plain["num_rounds"]
    assert (smoke["dataset"]["name"], smoke["federation"]["name"]) == ("synthetic", "in_process")
    own = composed("experiment=smoke", "num_rounds=7", "dataset=ml-1m", "federation=centralized")
    assert own["num_rounds"] == 7
    assert own["dataset"]["name"] == "ml-1m"
    assert own["federation"]["name"] == "centralized"
    assert own["partition"]["name"] == "single"


@pytest.mark.parametrize("name", sorted(p.stem for p in (CONF / "experiment").glob("*.yaml")))
def test_every_experiment_composes_and_builds(name: str) -> None:
    assert all(part is not None for part in made(composed(f"experiment={name}")))


LIKES = """# @package _global_
model:
  _target_: fedrec_flower.models.MF
  name: likes
  embedding_dim: 2
  init_std: 0.1
training:
  learning_rate: 7.0
  loss: bpr
num_rounds: 7
"""


@pytest.fixture
def likes(tmp_path: Path) -> list[str]:
    """A user's own model, in a folder of their own, that says how it likes to be trained."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "likes.yaml").write_text(LIKES)
    return [f"hydra.searchpath=[file://{tmp_path}]", "model=likes"]


def test_model_preset_overrides_defaults(likes: list[str]) -> None:
    config = composed(*likes)
    assert config["training"]["learning_rate"] == 7.0
    assert config["num_rounds"] == 7


def test_task_and_federation_override_the_model_preset(likes: list[str]) -> None:
    config = composed(*likes, "task=rating", "federation=centralized")
    assert config["training"]["loss"] == "mse"
    assert config["training"]["learning_rate"] != 7.0


def test_command_line_overrides_the_model_preset(likes: list[str]) -> None:
    config = composed(*likes, "training.learning_rate=3.0", "num_rounds=3")
    assert (config["training"]["learning_rate"], config["num_rounds"]) == (3.0, 3)


MODEL_TASK = sorted((CONF / "model_task").glob("*.yaml"))


@pytest.mark.parametrize("path", MODEL_TASK, ids=lambda path: path.stem)
def test_model_task_settings_override_both_presets_but_not_the_command_line(
    path: Path,
) -> None:
    model, _, task = path.stem.rpartition("_")  # another name would be read by nobody
    assert model in CHOICES["model"]
    assert task in CHOICES["task"]
    said = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(said, dict)
    found = composed(f"model={model}", f"task={task}")
    for group, value in said.items():
        known = found[str(group)]
        assert known == (known | value if isinstance(value, dict) else value)
    chosen = composed(f"model={model}", f"task={task}", "training.weight_decay=0.5")
    assert chosen["training"] == found["training"] | {"weight_decay": 0.5}

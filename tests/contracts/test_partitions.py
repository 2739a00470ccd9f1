"""What every partition named by a yaml must do; a new one is found here with no edit."""

from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from fedrec_flower.core.instantiate import build
from fedrec_flower.data.interactions import Interactions, Part, Split
from fedrec_flower.data.partitions.base import Partitioner
from fedrec_flower.data.partitions.statistics import partition_table

CONF = Path(__file__).parents[2] / "conf" / "partition"
EVERY_YAML = pytest.mark.parametrize(
    "path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem
)


@pytest.fixture
def interactions() -> Interactions:
    """Thirty users with attributes, the last one without interactions; items with genres."""
    rng = np.random.default_rng(0)
    return Interactions(
        user=np.repeat(np.arange(29, dtype=np.int32), 10),
        item=rng.integers(0, 40, size=290).astype(np.int32),
        rating=rng.integers(1, 6, size=290).astype(np.float32),
        timestamp=rng.integers(0, 50, size=290),
        user_ids=np.arange(30) * 2 + 1,
        item_ids=np.array([f"item-{item:02}" for item in range(40)]),
        users=pd.DataFrame(
            {
                "age": rng.integers(10, 70, size=30),
                "gender": rng.choice(["F", "M"], size=30),
                "occupation": rng.choice(["artist", "doctor", "writer"], size=30),
            }
        ),
        items=pd.DataFrame({"genres": rng.choice(["Action", "Comedy|Drama", "Drama"], size=40)}),
    )


@pytest.fixture
def split(interactions: Interactions) -> Split:
    return Split(np.arange(len(interactions), dtype=np.int8) % len(Part))


def load(path: Path) -> dict[str, Any]:
    """The yaml's keys and values."""
    return {str(key): value for key, value in OmegaConf.load(path).items()}


def make(path: Path) -> Partitioner:
    partitioner: Partitioner = build("partition", load(path))
    return partitioner


@EVERY_YAML
def test_the_yaml_gives_every_argument_and_is_the_only_home_of_defaults(path: Path) -> None:
    config = load(path)
    chosen = get_class(config["_target_"])
    assert is_dataclass(chosen)
    assert config["name"] == path.stem
    assert set(config) - {"_target_", "name"} == {field.name for field in fields(chosen)}
    assert all(field.default is MISSING for field in fields(chosen))


@EVERY_YAML
def test_every_user_has_a_client_and_every_client_a_user_and_a_name(
    path: Path, interactions: Interactions, split: Split
) -> None:
    partition = make(path).assign(interactions, split, seed=1)
    assert partition.client_of_user.dtype == np.int32
    assert len(partition.client_of_user) == interactions.num_users
    assert np.unique(partition.client_of_user).tolist() == list(range(partition.num_clients))
    assert len(set(partition.client_names.tolist())) == partition.num_clients


@EVERY_YAML
def test_the_same_seed_gives_the_same_clients(
    path: Path, interactions: Interactions, split: Split
) -> None:
    first, again = (make(path).assign(interactions, split, seed=1) for _ in range(2))
    assert first.client_of_user.tolist() == again.client_of_user.tolist()


@EVERY_YAML
def test_its_table_counts_every_user_and_interaction_once(
    path: Path, interactions: Interactions, split: Split
) -> None:
    table = partition_table(interactions, split, make(path).assign(interactions, split, seed=1))
    counts = table[["num_train", "num_validation", "num_test"]].to_numpy()
    assert table["num_users"].sum() == interactions.num_users
    assert counts.sum(axis=0).tolist() == [len(split.rows(part)) for part in Part]

"""What every split named by a yaml must do; a new one is found here with no edit."""

from dataclasses import MISSING, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from fedrec_flower.core.errors import DataError
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.interactions import Interactions, Part
from fedrec_flower.data.splits.base import Splitter, split_sha256

CONF = Path(__file__).parents[2] / "conf" / "split"
EVERY_YAML = pytest.mark.parametrize(
    "path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem
)
BY_LINES = {"file_folds"}  # what such a split means hangs on the file's order


@pytest.fixture
def interactions() -> Interactions:
    """Thirty users who each touched 8 to 12 of 40 items, many of them at the same time."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(8, 13, size=30)
    return Interactions(
        user=np.repeat(np.arange(30, dtype=np.int32), lengths),
        item=np.concatenate([rng.permutation(40)[:length] for length in lengths]).astype(np.int32),
        rating=None,
        timestamp=rng.integers(0, 50, size=lengths.sum()),
        user_ids=np.arange(30) * 2 + 1,
        item_ids=np.array([f"item-{item:02}" for item in range(40)]),
    )


def load(path: Path) -> dict[str, Any]:
    """The yaml's keys and values."""
    return {str(key): value for key, value in OmegaConf.load(path).items()}


def make(path: Path) -> Splitter:
    splitter: Splitter = build("split", load(path))
    return splitter


@EVERY_YAML
def test_the_yaml_gives_every_argument_and_is_the_only_home_of_defaults(path: Path) -> None:
    config = load(path)
    chosen = get_class(config["_target_"])
    assert is_dataclass(chosen)
    assert config["name"] == path.stem
    assert set(config) - {"_target_", "name"} == {field.name for field in fields(chosen)}
    assert all(field.default is MISSING for field in fields(chosen))


@EVERY_YAML
def test_negatives_are_honest_unless_asked(path: Path) -> None:
    assert make(path).negatives == "honest"


@EVERY_YAML
def test_it_loses_nothing_and_fills_every_part(path: Path, interactions: Interactions) -> None:
    rows = [make(path).split(interactions, seed=1).rows(part) for part in Part]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(interactions)))
    assert all(len(part) > 0 for part in rows)


@EVERY_YAML
def test_neither_file_order_nor_repetition_changes_it(
    path: Path, interactions: Interactions
) -> None:
    assert interactions.timestamp is not None
    order = np.random.default_rng(1).permutation(len(interactions))
    if path.stem in BY_LINES:
        order.sort()
    shuffled = replace(
        interactions,
        user=interactions.user[order],
        item=interactions.item[order],
        timestamp=interactions.timestamp[order],
    )
    split, again = (make(path).split(data, seed=1) for data in (interactions, shuffled))
    assert split.part.dtype == np.int8
    assert split.part[order].tolist() == again.part.tolist()
    assert split_sha256(interactions, split) == split_sha256(shuffled, again)


def refusal(splitter: Splitter, data: Interactions) -> str:
    """What the split says against the data; nothing if it takes them."""
    try:
        splitter.split(data, seed=1)
    except DataError as error:
        return str(error)
    return ""


@EVERY_YAML
def test_without_times_it_works_or_says_which_split_does(
    path: Path, interactions: Interactions
) -> None:
    said = refusal(make(path), replace(interactions, timestamp=None))
    assert not said or "use split=random" in said

"""What every yaml of the configuration must be; a new one is found here with no edit."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from fedrec_flower.cli.main import CONF, Schema

YAMLS = sorted(CONF.rglob("*.yaml"))
GROUP_YAMLS = [path for path in YAMLS if path.parent != CONF]
GLOBAL = "# @package _global_"
# What a run knows and no yaml says.
INJECTED = {"plan", "observer", "num_users", "num_items", "rating_range", "task"} | {
    "data",
    "grid",
    "item_features",
    "model",
    "num_attributes",
    "seed",
    "num_clients",
    "client_weight",
}
EXPLAINS_ITSELF = {"_target_", "name", "task"}


def title(path: Path) -> str:
    return path.relative_to(CONF).with_suffix("").as_posix()


def content(path: Path) -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def nodes(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The yaml's parts that name a class, by the group they belong to."""
    whole = content(path)
    if "_target_" in whole:
        yield path.parent.name, whole
    for group, node in whole.items():
        if isinstance(node, dict) and "_target_" in node:
            yield group, node


EVERY_YAML = pytest.mark.parametrize("path", YAMLS, ids=title)
EVERY_GROUP_YAML = pytest.mark.parametrize("path", GROUP_YAMLS, ids=title)
EVERY_NODE = pytest.mark.parametrize(
    ("stem", "node"),
    [pytest.param(p.stem, node, id=title(p)) for p in GROUP_YAMLS for _, node in nodes(p)],
)


def parameters(node: dict[str, Any]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(get_class(node["_target_"])).parameters)


@EVERY_GROUP_YAML
def test_it_names_a_class_or_says_that_it_speaks_for_the_whole(path: Path) -> None:
    assert "_target_" in content(path) or path.read_text().startswith(GLOBAL)


@EVERY_GROUP_YAML
def test_its_first_words_say_what_it_is(path: Path) -> None:
    words = path.read_text().removeprefix(GLOBAL).lstrip()
    assert re.match(r"# \S+ \S+ \S+", words)


@EVERY_NODE
def test_its_keys_are_the_arguments_that_the_run_does_not_know(
    stem: str, node: dict[str, Any]
) -> None:
    del stem
    accepted = set(parameters(node))
    given = set(node) - {"_target_"} - ({"name"} - accepted)
    assert given <= accepted
    assert accepted - given <= INJECTED


@EVERY_NODE
def test_a_default_has_no_home_but_the_yaml(stem: str, node: dict[str, Any]) -> None:
    del stem
    defaults = {name: p.default for name, p in parameters(node).items()}
    assert set(defaults.values()) <= {inspect.Parameter.empty}, defaults


@EVERY_NODE
def test_its_label_is_its_file_name(stem: str, node: dict[str, Any]) -> None:
    assert node.get("name", stem) == stem


def test_the_schema_knows_names_and_types_but_no_values() -> None:
    assert {field.default for field in fields(Schema)} == {"???"}
    assert {field.default_factory for field in fields(Schema)} == {MISSING}


@EVERY_GROUP_YAML
def test_only_known_names_are_set(path: Path) -> None:
    """A file that speaks for the whole sets nothing that the schema lacks; a sweep is Hydra's."""
    known = {field.name for field in fields(Schema)} | {"defaults", "hydra"}
    if path.read_text().startswith(GLOBAL):
        assert set(content(path)) <= known


@EVERY_YAML
def test_every_value_is_explained_where_it_stands_or_above(path: Path) -> None:
    assert list(unexplained(path.read_text())) == []


def unexplained(text: str) -> Iterator[str]:
    """The lines with a value that neither they nor what they belong to explains."""
    explained: list[tuple[int, bool]] = []  # indentation of the open mappings, have they a comment
    for line in text.splitlines():
        body, has_comment = line.partition("#")[0], "#" in line
        indentation = len(body) - len(body.lstrip())
        key, _, value = body.strip().partition(":")
        if not key:
            continue
        while explained and explained[-1][0] >= indentation:
            explained.pop()
        above = any(has for _, has in explained)
        if value:
            if not (has_comment or above or key in EXPLAINS_ITSELF):
                yield line
        else:
            explained.append((indentation, has_comment or above or key == "defaults"))


def test_a_bare_value_is_found_and_an_explained_one_is_not() -> None:
    text = "name: toy\nrate: 1 # of learning\ncolumns: # in the file\n  user: id\nsize: 3\n"
    assert list(unexplained(text)) == ["size: 3"]

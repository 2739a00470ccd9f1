"""Laws of every yaml of the configuration. New yamls are found without an edit."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hydra.utils import get_class

from fedrec_flower.core.instantiate import settings_of
from fedrec_flower.experiment.composition import CONF, Schema
from tests.helpers.conf_yamls import content

YAMLS = sorted(CONF.rglob("*.yaml"))
GROUP_YAMLS = [path for path in YAMLS if path.parent != CONF]
GLOBAL = "# @package _global_"
# Arguments that the run passes; no yaml holds them.
INJECTED = {"info", "num_users", "num_items", "rating_range", "task"} | {
    "data",
    "grid",
    "item_features",
    "model",
    "num_attributes",
    "seed",
    "num_clients",
    "client_weight",
    "folder",
    "summary",
    "num_rounds",
    "select_by",
}
# Groups whose yamls become part of the node that includes them.
FRAGMENTS = {"server_optimizer", "callbacks"}
EXPLAINS_ITSELF = {"_target_", "name", "task"}


def title(path: Path) -> str:
    return path.relative_to(CONF).with_suffix("").as_posix()


def nodes(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each node of the yaml that names a class, with its group."""
    whole = content(path)
    if "_target_" in whole:
        yield path.parent.name, whole
    for group, node in whole.items():
        if isinstance(node, dict) and "_target_" in node:
            yield group, node


NODES = [(path, node) for path in GROUP_YAMLS for _, node in nodes(path)]


def parameters(node: dict[str, Any]) -> dict[str, inspect.Parameter]:
    return settings_of(get_class(node["_target_"]))


def test_every_yaml_names_a_class_or_is_a_global_package_or_a_fragment() -> None:
    offenders = [
        title(path)
        for path in GROUP_YAMLS
        if "_target_" not in content(path)
        and not path.read_text().startswith(GLOBAL)
        and path.parent.name not in FRAGMENTS
    ]
    assert offenders == []


def test_every_yaml_begins_with_a_comment_on_its_content() -> None:
    offenders = [
        title(path)
        for path in GROUP_YAMLS
        if not re.match(r"# \S+ \S+ \S+", path.read_text().removeprefix(GLOBAL).lstrip())
    ]
    assert offenders == []


def test_keys_are_the_constructor_arguments_that_the_run_does_not_inject() -> None:
    offenders = []
    for path, node in NODES:
        accepted = set(parameters(node))
        configured = set(node) - {"_target_", "defaults"} - ({"name"} - accepted)
        if not (configured <= accepted and accepted - configured <= INJECTED):
            offenders.append((title(path), configured ^ accepted))
    assert offenders == []


def test_constructors_have_no_defaults_beside_the_yaml() -> None:
    offenders = []
    for path, node in NODES:
        defaults = {name: p.default for name, p in parameters(node).items()}
        if set(defaults.values()) - {inspect.Parameter.empty}:
            offenders.append((title(path), defaults))
    assert offenders == []


def test_name_of_a_node_is_its_file_name() -> None:
    assert [title(p) for p, node in NODES if node.get("name", p.stem) != p.stem] == []


def test_schema_holds_names_and_types_but_no_values() -> None:
    assert {field.default for field in fields(Schema)} == {"???"}
    assert {field.default_factory for field in fields(Schema)} == {MISSING}


def test_global_yamls_set_only_names_of_the_schema() -> None:
    known = {field.name for field in fields(Schema)} | {"defaults", "hydra"}
    offenders = [
        (title(path), set(content(path)) - known)
        for path in GROUP_YAMLS
        if path.read_text().startswith(GLOBAL) and not set(content(path)) <= known
    ]
    assert offenders == []


def test_every_value_has_a_comment_on_its_line_or_above() -> None:
    lines = {title(path): list(unexplained(path.read_text())) for path in YAMLS}
    assert {name: found for name, found in lines.items() if found} == {}


def unexplained(text: str) -> Iterator[str]:
    """Yield lines whose value has no comment on the line or on an enclosing key."""
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


def test_unexplained_finds_a_value_without_comment() -> None:
    text = "name: toy\nrate: 1 # of learning\ncolumns: # in the file\n  user: id\nsize: 3\n"
    assert list(unexplained(text)) == ["size: 3"]

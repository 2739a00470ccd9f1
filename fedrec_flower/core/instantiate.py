"""From configuration nodes to objects; classes and values are checked before anything is built.

A configuration may come from a stranger: in a run folder that was passed on, or in the job of a
server. So it names nothing but classes of the group that it configures, of this package or of a
plug-in. Plug-ins are packages that declare an entry point of `fedrec_flower.plugins`, and those
that the user names on the command line (`plugins=[my_package]`), the owner of a node in its
`--node-config`, or either in the environment variable FEDREC_FLOWER_PLUGINS. No configuration can
name one. To import a module is to run it, so names are looked at before anything is imported.
"""

import inspect
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from fedrec_flower.core.errors import ConfigError

_PLUGINS = "FEDREC_FLOWER_PLUGINS"  # inherited by worker processes
_OURS = "fedrec_flower"
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Kind:
    """The classes of one group of the configuration.

    Attributes:
        package: where ours are, below this package.
        base: what each of them extends, as package.module.class; "" for a protocol.
        methods: what each of them has, where the group is a protocol.
    """

    package: str
    base: str = ""
    methods: tuple[str, ...] = ()

    def includes(self, found: Any) -> bool:
        """Whether an object is one of these classes."""
        if not inspect.isclass(found):
            return False
        if self.base:
            module, _, name = f"{_OURS}.{self.base}".rpartition(".")
            return issubclass(found, getattr(import_module(module), name))
        return all(callable(getattr(found, name, None)) for name in self.methods)


_KINDS = {
    "attack": _Kind("threats", "threats.NoAttack"),
    "compression": _Kind("communication.compression", "communication.compression.Compression"),
    "dataset": _Kind("data.sources", methods=("load", "fingerprint")),
    "evaluation": _Kind("evaluation", methods=("evaluate", "finish")),
    "faults": _Kind("threats", "threats.NoFaults"),
    "federation": _Kind("federation.transport", methods=("run",)),
    "local": _Kind("strategies", "strategies.client_updates.Plain"),
    "model": _Kind("models", "models.Recommender"),
    "partition": _Kind("data.partitions", methods=("assign",)),
    "privacy": _Kind("privacy", "privacy.NoPrivacy"),
    "secure_aggregation": _Kind(
        "communication.secure_aggregation", methods=("check", "check_strategy")
    ),
    "split": _Kind("data.splits", methods=("split",)),
    "strategy": _Kind("strategies", "federation.server.loop.FederatedStrategy"),
    "training": _Kind("training", "training.LocalTraining"),
}


def trust(packages: str) -> None:
    """Let configurations name classes of these packages, in this process and its workers.

    Args:
        packages: names of top-level packages, separated by commas; brackets around them, blanks
            and an empty text do no harm.

    Raises:
        ConfigError: if a name cannot be that of a package.
    """
    names = [name.strip(" '\"") for name in packages.strip().strip("[]").split(",")]
    for name in filter(None, names):
        if not name.isidentifier():
            raise ConfigError(
                f"plugins={packages} names no packages: write plugins=[my_package], without dots"
            )
    known = [*filter(None, os.environ.get(_PLUGINS, "").split(","))]
    os.environ[_PLUGINS] = ",".join(dict.fromkeys([*known, *filter(None, names)]))


def trusted() -> list[str]:
    """The packages of plug-ins: those that were named, and those that are installed as such."""
    named = os.environ.get(_PLUGINS, "").split(",")
    return [*filter(None, named), *_installed()]


@cache
def _installed() -> list[str]:
    return [point.module for point in entry_points(group=f"{_OURS}.plugins")]


def build(group: str, node: Mapping[str, Any], **available: Any) -> Any:
    """Make the object that a configuration node describes.

    Args:
        group: the node's place in the configuration, for messages: "model", "strategy", ...
        node: `_target_` and the constructor's arguments; `name` may label the node.
        available: what the run knows, such as `num_items`; the constructor takes what it names.

    Returns:
        An instance of the target.

    Raises:
        ConfigError: if the target is no class of this group, or cannot be found, or an argument
            is unknown, missing or of a wrong type; names the value and the mend.
    """
    target = _locate(group, node.get("_target_", ""))
    accepted = inspect.signature(target).parameters
    given = {k: v for k, v in node.items() if k != "_target_" and (k != "name" or k in accepted)}
    injected = {k: v for k, v in available.items() if k in accepted}
    _check_names(group, given, injected, accepted)
    hints = get_type_hints(target.__init__)
    checked = {k: _check_type(f"{group}.{k}", v, hints.get(k, Any)) for k, v in given.items()}
    return target(**checked, **injected)


def _locate(group: str, path: Any) -> Any:
    """The class that a path names, which is one of the group's.

    Raises:
        ConfigError: if it is not, or cannot be imported; what is refused is not even imported.
    """
    kind = _KINDS[group]
    if not isinstance(path, str) or not _PATH.fullmatch(path) or "__main__" in path.split(".")[1:]:
        raise ConfigError(f"{group}._target_={path!r} is no class: name one by its full path")
    ours, (top, *_) = f"{_OURS}.{kind.package}", path.split(".")
    if not any(path.startswith(f"{package}.") for package in (ours, *trusted())):
        ways = f"name a class of {ours}"
        if top != _OURS and top not in sys.stdlib_module_names:
            ways += f", or add plugins=[{top}] on the command line if you trust that package"
        raise ConfigError(
            f"{group}._target_={path!r} is refused, because it is outside {ours} and of no "
            f"plug-in: {ways}"
        )
    found = _imported(group, path)
    if not kind.includes(found):
        wanted = kind.base.rpartition(".")[2] or " and ".join(f"{m}()" for m in kind.methods)
        raise ConfigError(f"{group}._target_={path!r} is refused: name a class with {wanted}")
    return found


def _imported(group: str, path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{group}._target_={path!r} cannot be imported ({error}): name a class by its full path"
        ) from error


def _check_names(
    group: str,
    given: Mapping[str, Any],
    injected: Mapping[str, Any],
    accepted: Mapping[str, inspect.Parameter],
) -> None:
    for name in given:
        if name not in accepted:
            near = get_close_matches(name, accepted, n=1)
            hint = f"did you mean {group}.{near[0]}?" if near else f"known are {list(accepted)}"
            raise ConfigError(f"{group}.{name} does not exist: {hint}")
        if name in injected:
            raise ConfigError(f"{group}.{name} follows from the rest of the run: leave it out")
    for name, parameter in accepted.items():
        missing = name not in given and name not in injected
        if missing and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{group}.{name} is missing: give it a value in conf/{group}/")


def _check_type(path: str, value: Any, hint: Any) -> Any:
    """The value as the annotation wants it; no text becomes a number, no number a truth."""
    try:
        return TypeAdapter(hint).validate_python(value, strict=True)
    except PydanticSchemaGenerationError:
        return value  # an annotation that pydantic cannot read is the constructor's own affair
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"{path}={value!r} is of a wrong kind: {reason}") from error

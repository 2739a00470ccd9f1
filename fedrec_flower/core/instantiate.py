"""Builds objects from configuration nodes; classes and values are checked first.

A configuration may be untrusted: it may come from a shared run folder or in the job that a server
sends. Therefore it may only name classes of the group that it configures, from this package or
from a plug-in. A plug-in is a package that declares an entry point of the group
`fedrec_flower.plugins`, or that is named on the command line (`plugins=[my_package]`), by the owner
of a node in `--node-config`, or in the environment variable FEDREC_FLOWER_PLUGINS. A configuration
cannot declare a plug-in. Importing a module executes it, so names are checked before any import.
"""

import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, get_type_hints

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.ranges import check_value

_PLUGINS = "FEDREC_FLOWER_PLUGINS"  # inherited by worker processes
_PACKAGE = "fedrec_flower"
_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
# Rooms of the first layout, as run folders of that time name them -> the rooms of today.
_MOVED = {
    "attacks": "threats",
    "compression": "communication.compression",
    "datasets": "data.sources",
    "faults": "threats",
    "federation": "federation.transport",
    "partitions": "data.partitions",
    "secure_aggregation": "communication.secure_aggregation",
    "splits": "data.splits",
}
_RENAMED = {f"{_PACKAGE}.strategies.Sums": f"{_PACKAGE}.strategies.SufficientStatistics"}
_OLD_PATH = re.compile(rf"{_PACKAGE}\.(?P<room>{'|'.join(_MOVED)})(\.[a-z_]+)?\.(?P<name>[A-Z]\w*)")


@dataclass(frozen=True, slots=True)
class _Kind:
    """The classes that one configuration group may name.

    Attributes:
        package: package of the built-in classes, below `fedrec_flower`.
        base: base class, as package.module.class below `fedrec_flower`; "" for a protocol.
        methods: required methods, if the group is a protocol.
    """

    package: str
    base: str = ""
    methods: tuple[str, ...] = ()

    def includes(self, candidate: Any) -> bool:
        """Whether an object is one of these classes."""
        if not inspect.isclass(candidate):
            return False
        if self.base:
            module, _, name = f"{_PACKAGE}.{self.base}".rpartition(".")
            return issubclass(candidate, getattr(import_module(module), name))
        return all(callable(getattr(candidate, name, None)) for name in self.methods)


_KINDS = {
    "callbacks": _Kind("experiment.callbacks", "federation.server.callback.Callback"),
    "attack": _Kind("threats", "threats.Attack"),
    "compression": _Kind("communication.compression", "communication.compression.Compression"),
    "dataset": _Kind("data.sources", methods=("load", "fingerprint")),
    "evaluation": _Kind("evaluation", methods=("evaluate", "finish")),
    "faults": _Kind("threats", "threats.FaultModel"),
    "federation": _Kind("federation.transport", methods=("run",)),
    "local": _Kind("strategies", "strategies.client_updates.LocalUpdateRule"),
    "model": _Kind("models", "models.Recommender"),
    "partition": _Kind("data.partitions", methods=("assign",)),
    "privacy": _Kind("privacy", "privacy.PrivacyMechanism"),
    "secure_aggregation": _Kind(
        "communication.secure_aggregation", methods=("check", "check_strategy")
    ),
    "split": _Kind("data.splits", methods=("split",)),
    "strategy": _Kind("strategies", "strategies.base.FederatedStrategy"),
    "training": _Kind("training", "training.LocalTraining"),
}


def trust(packages: str) -> None:
    """Let configurations name classes of these packages, in this process and its workers.

    Args:
        packages: names of top-level packages, separated by commas; may be empty, in brackets, or
            contain blanks.

    Raises:
        ConfigError: if a name is not an identifier.
    """
    names = [name.strip(" '\"") for name in packages.strip().strip("[]").split(",")]
    for name in filter(None, names):
        if not name.isidentifier():
            raise ConfigError(
                f"plugins={packages} is not a list of packages: write plugins=[my_package], "
                "without dots"
            )
    earlier = os.environ.get(_PLUGINS, "").split(",")
    unique = dict.fromkeys(name for name in [*earlier, *names] if name)
    os.environ[_PLUGINS] = ",".join(unique)


def trusted() -> list[str]:
    """Packages of plug-ins: those named by the user, and those with an entry point."""
    named = os.environ.get(_PLUGINS, "").split(",")
    return [*filter(None, named), *_installed()]


@cache
def _installed() -> list[str]:
    return [point.module for point in entry_points(group=f"{_PACKAGE}.plugins")]


def build(group: str, node: Mapping[str, Any], **available: Any) -> Any:
    """Build the object that a configuration node describes.

    A constructor's argument whose class has a method `from_settings` is built from keys of the same
    node, those that the method names: so several classes share these keys and one definition.

    Args:
        group: the configuration group: "model", "strategy", ...; or a node in it, such as
            "callbacks.progress".
        node: `_target_` and the constructor's arguments; `name` is a label of the node.
        available: values of the run, such as `num_items`; those that the constructor declares are
            passed to it.

    Returns:
        An instance of the target.

    Raises:
        ConfigError: if the target cannot be imported or is not a class of this group, or if an
            argument is unknown, missing, out of range or of a wrong type; names value and fix.
    """
    target = locate(group, node.get("_target_", ""))
    accepted = settings_of(target)
    injected = {k: v for k, v in available.items() if k in accepted}
    arguments = _checked_arguments(group, node, target)
    _check_complete(group, arguments, injected, accepted)
    for name, part in _parts(target).items():
        keys = inspect.signature(part.from_settings).parameters
        settings = {key: arguments.pop(key) for key in keys if key in arguments}
        arguments[name] = part.from_settings(**settings)
    return target(**arguments, **injected)


def check_node(group: str, node: Mapping[str, Any]) -> None:
    """Check a configuration node without building its object, before data or model exist.

    Args:
        group: see `build`.
        node: see `build`; missing arguments are not reported, as the run may provide them.

    Raises:
        ConfigError: if the target cannot be imported or is not a class of this group, or if an
            argument is unknown, out of range or of a wrong type; names value and fix.
    """
    _checked_arguments(group, node, locate(group, node.get("_target_", "")))


def _checked_arguments(group: str, node: Mapping[str, Any], target: Any) -> dict[str, Any]:
    """The constructor's arguments in a node; their names, types and ranges are checked."""
    accepted = settings_of(target)
    hints = get_type_hints(target.__init__, include_extras=True)
    for part in _parts(target).values():
        hints |= get_type_hints(part.from_settings, include_extras=True)
    checked = {}
    for name, value in node.items():
        if name == "_target_" or (name == "name" and name not in accepted):
            continue
        if name not in accepted:
            near = get_close_matches(name, accepted, n=1)
            fix = f"did you mean {group}.{near[0]}?" if near else f"choose from {list(accepted)}"
            raise ConfigError(f"{group}.{name} does not exist: {fix}")
        checked[name] = check_value(f"{group}.{name}", value, hints.get(name, Any))
    return checked


def settings_of(target: Any) -> dict[str, inspect.Parameter]:
    """The arguments that `build` accepts for a class, by name."""
    accepted = dict(inspect.signature(target).parameters)
    for name, part in _parts(target).items():
        del accepted[name]
        accepted |= inspect.signature(part.from_settings).parameters
    return accepted


def _parts(target: Any) -> dict[str, Any]:
    """The classes of the constructor's arguments that have `from_settings`, by argument."""
    hints = get_type_hints(target.__init__)
    names = inspect.signature(target).parameters
    return {name: hints[name] for name in names if hasattr(hints.get(name), "from_settings")}


def class_path(kind: type) -> str:
    """Return the full path of a class, as `_target_` names it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def locate(group: str, path: Any) -> Any:
    """Import the class that a path names.

    Raises:
        ConfigError: if the path is not allowed (checked before the import), cannot be imported, or
            is not a class of this group.
    """
    kind = _KINDS[group.partition(".")[0]]
    path = current_path(path)
    if not isinstance(path, str) or not _PATH.fullmatch(path) or "__main__" in path.split(".")[1:]:
        raise ConfigError(f"{group}._target_={path!r} is not a class: name one by its full path")
    built_in = f"{_PACKAGE}.{kind.package}"
    top = path.partition(".")[0]
    if not any(path.startswith(f"{package}.") for package in (built_in, *trusted())):
        fix = f"name a class of {built_in}"
        if top != _PACKAGE and top not in sys.stdlib_module_names:
            fix += f", or add plugins=[{top}] on the command line if you trust that package"
        raise ConfigError(
            f"{group}._target_={path!r} is refused, because it belongs neither to {built_in} nor "
            f"to a plug-in: {fix}"
        )
    target = _imported(group, path)
    if not kind.includes(target):
        required = kind.base.rpartition(".")[2] or " and ".join(f"{m}()" for m in kind.methods)
        raise ConfigError(f"{group}._target_={path!r} is refused: name a class with {required}")
    return target


def current_path(path: Any) -> Any:
    """Translate the path of a class in a configuration of version 0.1.0 before its move."""
    if not isinstance(path, str):
        return path
    match = _OLD_PATH.fullmatch(path)
    if match is None:
        return _RENAMED.get(path, path)
    return f"{_PACKAGE}.{_MOVED[match['room']]}.{match['name']}"


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings with dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _imported(group: str, path: str) -> Any:
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{group}._target_={path!r} cannot be imported ({error}): name a class by its full path"
        ) from error


def _check_complete(
    group: str,
    arguments: Mapping[str, Any],
    injected: Mapping[str, Any],
    accepted: Mapping[str, inspect.Parameter],
) -> None:
    """Check that each argument comes from the configuration or from the run, not from both."""
    for name in arguments:
        if name in injected:
            raise ConfigError(f"{group}.{name} follows from the rest of the run: leave it out")
    for name, parameter in accepted.items():
        missing = name not in arguments and name not in injected
        if missing and parameter.default is inspect.Parameter.empty:
            raise ConfigError(f"{group}.{name} is missing: give it a value in conf/{group}/")

"""From configuration nodes to objects; values are checked before anything is built."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from fedrec_flower.errors import ConfigError


def build(group: str, node: Mapping[str, Any], **available: Any) -> Any:
    """Make the object that a configuration node describes.

    Args:
        group: the node's place in the configuration, for messages: "model", "strategy", ...
        node: `_target_` and the constructor's arguments; `name` may label the node.
        available: what the run knows, such as `num_items`; the constructor takes what it names.

    Returns:
        An instance of the target.

    Raises:
        ConfigError: if the target cannot be found, or an argument is unknown, missing or of a
            wrong type; names the value and the mend.
    """
    target = _locate(group, node.get("_target_", ""))
    accepted = inspect.signature(target).parameters
    given = {k: v for k, v in node.items() if k != "_target_" and (k != "name" or k in accepted)}
    injected = {k: v for k, v in available.items() if k in accepted}
    _check_names(group, given, injected, accepted)
    hints = get_type_hints(target.__init__)
    checked = {k: _check_type(f"{group}.{k}", v, hints.get(k, Any)) for k, v in given.items()}
    return target(**checked, **injected)


def _locate(group: str, path: str) -> Any:
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

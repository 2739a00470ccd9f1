"""Prepares command-line arguments for Hydra: plug-ins, paths, run folders.

A run folder may be untrusted, so its config.yaml is read as data only. Hydra would instantiate
the classes that a `hydra` section names (launcher, sweeper, callbacks, log handlers), set
environment variables, and resolve `${oc.env:...}` to the values of variables. Therefore Hydra
is given a copy: the settings of the run, and the `hydra` section of this package. `--config-dir`,
which adds the user's own choices, is not checked: like code, it must come from a trusted source.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.instantiate import flattened, trust
from fedrec_flower.experiment.composition import (
    PATHS,
    compose_unresolved,
    repeatable,
    require_paths,
)

_NEEDS_QUOTES = re.compile(r"[^\x00-\x7f]|[~=#;]")  # characters that Hydra reads only in quotes
_HYDRA_SYNTAX = re.compile(r"[,{}()\[\]$'\"]")  # a sweep, a list, an interpolation, quotes

Words = list[str]


def take_plugins(words: Words) -> None:
    """Trust the packages of plugins=... and remove that argument, so that no run records it."""
    for word in [word for word in words if word.lstrip("+").startswith("plugins=")]:
        trust(word.partition("=")[2])
        words.remove(word)


def quote_paths(words: Words) -> None:
    """Put paths in quotes where Hydra needs them; the shell has removed the user's quotes."""
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        is_path = name.lstrip("+") in PATHS
        if is_path and _NEEDS_QUOTES.search(value) and not _HYDRA_SYNTAX.search(value):
            words[place] = f"{name}='{value}'"


def expand_resume(words: Words) -> None:
    """Replace resume=FOLDER by the arguments that compose the configuration of that folder.

    Only the settings in `FAILURE_LIMITS` may change, so that a failed run can be given more
    retries; any other change would make it a different run.

    Raises:
        ConfigError: if another argument is given, or the folder contains no run.
    """
    value = next((word.partition("=")[2] for word in words if word.startswith("resume=")), None)
    if value is None or value == "null":
        return
    require_paths({"resume": value})
    remaining = [word for word in words if word != f"resume={value}"]
    from fedrec_flower.reports.settings import FAILURE_LIMITS  # imported here: needs pandas

    if changes := [word for word in remaining if word.partition("=")[0] not in FAILURE_LIMITS]:
        raise ConfigError(
            f"resume={value} uses the configuration of that folder: leave out {changes[0]}"
        )
    folder = Path(value.strip("'\"")).expanduser().absolute()
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"resume={value} is no run folder (it has no config.yaml): give the folder of a run; "
            "to continue a sweep, repeat its command"
        )
    quoted = "'" + str(folder).replace("'", "\\'") + "'"
    words[:] = [f"--config-path={folder}", f"output_dir={quoted}", f"resume={quoted}", *remaining]


@contextmanager
def plain_configurations(words: Words) -> Iterator[None]:
    """Replace the run folders of --config-path by safe copies (reason: module docstring).

    Args:
        words: the command-line arguments; changed in place.

    Raises:
        ConfigError: if such a folder contains no run, or more than data.
    """
    with TemporaryDirectory(prefix="fedrec-flower-") as scratch:
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            if _abbreviates(name, "--experimental-rerun", "--e"):
                raise ConfigError(f"{name} runs code from a file: use --config-path=<run folder>")
            if name != "-cp" and not _abbreviates(name, "--config-path", "--config-p"):
                continue
            if not equals and place + 1 == len(words):
                continue  # Hydra reports the missing value
            folder = Path(value if equals else words[place + 1]).expanduser().absolute()
            copy = Path(scratch) / str(place)
            copy.mkdir()
            (copy / "config.yaml").write_text(_as_data(folder), encoding="utf-8")
            if equals:
                words[place] = f"{name}={copy}"
            else:
                words[place + 1] = str(copy)
        yield


def _abbreviates(word: str, option: str, shortest: str) -> bool:
    """True if a word is an option or an unambiguous abbreviation of it."""
    return option.startswith(word) and word.startswith(shortest)


def _as_data(folder: Path) -> str:
    """Read the settings in a folder's config.yaml and return them as the text of a safe one.

    Raises:
        ConfigError: if there are no settings, or the file contains more than values.
    """
    file = folder / "config.yaml"
    fix = "give --config-path the folder of a run"
    require(folder.is_dir(), f"{folder} is not a folder: {fix}")
    require(file.is_file(), f"there is no config.yaml there: {fix}")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))  # without resolving
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{folder} contains no configuration of a run ({reason}): give the folder of a run"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file} is not the configuration of a run: give the folder of a run")
    chosen = [entry for entry in content.pop("defaults", None) or [] if _chooses(entry)]
    if chosen:
        raise ConfigError(
            f"{file} has a defaults list of its own ({chosen[0]}), but --config-path takes the "
            "folder of a run: use --config-dir for a folder of your own choices"
        )
    content.pop("hydra", None)
    content.setdefault("callbacks", _default_callbacks())  # earlier versions had no such group
    for name, value in flattened(content):
        if name != "output_dir" and "${" in str(value):
            raise ConfigError(
                f"{file} sets {name}={value}, but a run records values only: write the value "
                "instead of the interpolation"
            )
    return repeatable(content)


def _chooses(entry: Any) -> bool:
    """True if a `defaults` entry is not one of those in every run's config.yaml."""
    name = next(iter(entry), "") if isinstance(entry, dict) else entry
    return name not in ("schema", "_self_") and not str(name).startswith("override hydra/")


def _default_callbacks() -> Any:
    return OmegaConf.to_container(compose_unresolved([]).callbacks)

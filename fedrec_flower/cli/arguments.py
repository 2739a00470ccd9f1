"""The words of the command line, before Hydra reads them: plug-ins, paths, folders of runs.

A run folder may come from a stranger, so its config.yaml is data and nothing else. Hydra would
build whatever a `hydra` section names (launcher, sweeper, callbacks, handlers of logs), set
environment variables and put the values of others in place of `${oc.env:...}`. Therefore it is
given a copy: the settings of the run, and a `hydra` section of our own. `--config-dir`, which adds
choices of the user's own, is not looked at: like code, it should come from somebody one trusts.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.instantiate import trust

PATHS = (
    *("output_dir", "resume", "init_from", "dataset.path", "dataset.cache_dir"),
    *("dataset.items_path", "dataset.users_path"),
)
"""Options that name files or folders."""

_UNREADABLE = re.compile(r"[^\x00-\x7f]|[~=#;]")  # what Hydra reads in quotes alone
_SEVERAL = re.compile(r"[,{}()\[\]$'\"]")  # a sweep, a list, an interpolation, quotes

Words = list[str]


def take_plugins(words: Words) -> None:
    """Trust the packages that plugins=... names, and leave that word out: no run records it."""
    for word in [word for word in words if word.lstrip("+").startswith("plugins=")]:
        trust(word.partition("=")[2])
        words.remove(word)


def quote_paths(words: Words) -> None:
    """Put paths in quotes where Hydra needs them and the shell took them away."""
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        wanted = name.lstrip("+") in PATHS and _UNREADABLE.search(value)
        if wanted and not _SEVERAL.search(value):
            words[place] = f"{name}='{value}'"


def require_paths(settings: Mapping[str, Any]) -> None:
    """Refuse a path of no characters, which would mean the current folder.

    Raises:
        ConfigError: names the option.
    """
    from fedrec_flower.reports.settings import flattened  # here: it takes pandas along

    for name, value in flattened(settings):
        if name in PATHS and value == "":
            raise ConfigError(f"{name} is empty: give it a path, or leave it out")


def expand_resume(words: Words) -> None:
    """Replace resume=FOLDER by the words that compose that folder's own configuration, in it.

    A run that gave up may be told to be more patient; anything else would make it another run.

    Raises:
        ConfigError: if anything else was said, or the folder holds no run.
    """
    value = next((word.partition("=")[2] for word in words if word.startswith("resume=")), None)
    if value is None or value == "null":
        return
    require_paths({"resume": value})
    others = [word for word in words if word != f"resume={value}"]
    from fedrec_flower.reports.settings import FAILURE_LIMITS  # here: it takes pandas along

    if changes := [word for word in others if word.partition("=")[0] not in FAILURE_LIMITS]:
        raise ConfigError(
            f"resume={value} goes on with the configuration in that folder: leave out {changes[0]}"
        )
    folder = Path(value.strip("'\"")).expanduser().absolute()
    if not (folder / "config.yaml").is_file():
        raise ConfigError(
            f"resume={value} is no run (it has no config.yaml): give the folder of one; to go on "
            "with a sweep, give its own command again"
        )
    quoted = "'" + str(folder).replace("'", "\\'") + "'"
    words[:] = [f"--config-path={folder}", f"output_dir={quoted}", f"resume={quoted}", *others]


@contextmanager
def plain_configurations(words: Words, conf: Path) -> Iterator[None]:
    """Give Hydra copies of the run folders that --config-path names; see the module.

    Args:
        words: the command line, which is changed.
        conf: the folder of our own configuration.

    Raises:
        ConfigError: if such a folder holds no run, or is more than data.
    """
    with TemporaryDirectory(prefix="fedrec-flower-") as scratch:
        for place, word in enumerate(words):
            name, equals, value = word.partition("=")
            if _abbreviates(name, "--experimental-rerun", "--e"):
                raise ConfigError(f"{name} runs code from a file: use --config-path=<run folder>")
            if name != "-cp" and not _abbreviates(name, "--config-path", "--config-p"):
                continue
            if not equals and place + 1 == len(words):
                continue  # Hydra complains
            folder = Path(value if equals else words[place + 1]).expanduser().absolute()
            copy = Path(scratch) / str(place)
            copy.mkdir()
            (copy / "config.yaml").write_text(_as_data(folder, conf), encoding="utf-8")
            words[place] = f"{name}={copy}" if equals else name
            if not equals:
                words[place + 1] = str(copy)
        yield


def _abbreviates(word: str, option: str, shortest: str) -> bool:
    """Whether a word is an option, or so much of its beginning that Hydra knows which."""
    return option.startswith(word) and word.startswith(shortest)


def repeatable(settings: Mapping[str, Any], conf: Path) -> str:
    """The text of a config.yaml: `--config-path` on its folder repeats the run, in a new folder.

    Args:
        settings: the settings, resolved.
        conf: the folder of our own configuration.
    """
    original = OmegaConf.load(conf / "config.yaml")
    logging_as_here = [entry for entry in original.defaults if "override" in str(entry)]
    whole = {"defaults": ["schema", "_self_", *logging_as_here], "hydra": original.hydra}
    place = OmegaConf.to_container(original)["output_dir"]  # type: ignore[call-overload, index]  # a mapping at the root
    saved = {**settings, "resume": None, "output_dir": place}
    return OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.create(whole), OmegaConf.create(saved)))


def _as_data(folder: Path, conf: Path) -> str:
    """The settings in a folder's config.yaml, as the text of one of ours.

    Raises:
        ConfigError: if there are none, or they are more than values.
    """
    file = folder / "config.yaml"
    mend = "give --config-path the folder of a run"
    require(folder.is_dir(), f"{folder} is no folder: {mend}")
    require(file.is_file(), f"there is no config.yaml there: {mend}")
    try:
        content: Any = OmegaConf.to_container(OmegaConf.load(file))  # nothing is resolved
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{folder} holds no configuration of a run ({reason}): give the folder of a run"
        ) from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{file} is not the configuration of a run: give the folder of a run")
    chosen = [entry for entry in content.pop("defaults", None) or [] if _chooses(entry)]
    if chosen:
        raise ConfigError(
            f"{file} makes choices of its own ({chosen[0]}), and --config-path takes the folder of "
            "a run: for a folder of your own choices use --config-dir"
        )
    content.pop("hydra", None)
    from fedrec_flower.reports.settings import flattened  # here: it takes pandas along

    for name, value in flattened(content):
        if name != "output_dir" and "${" in str(value):
            raise ConfigError(
                f"{file} sets {name}={value}, and a run records values alone: write the value "
                "instead of the interpolation"
            )
    return repeatable(content, conf)


def _chooses(entry: Any) -> bool:
    """Whether an entry of `defaults` is more than what every run's config.yaml has."""
    name = next(iter(entry), "") if isinstance(entry, dict) else entry
    return name not in ("schema", "_self_") and not str(name).startswith("override hydra/")

"""Presets: choices of one group that also set values of other groups, such as `model=ease`.

A preset is a yaml with `# @package _global_`. The command line prints its further settings at the
start of a run, and `--help` lists all presets.
"""

from collections.abc import Mapping
from typing import Any

from hydra.core.default_element import GroupDefault
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from fedrec_flower.core.instantiate import flattened

GROUPS = ("model", "task", "model_task", "privacy", "faults", "attack", "federation", "mode")
"""Groups with presets. An experiment is one too, but its name says that it sets everything."""


def preset_lines(config: DictConfig, choices: Mapping[str, str | None]) -> list[str]:
    """Describe the settings that the chosen presets have made in other groups.

    Args:
        config: the composed configuration.
        choices: the chosen option of each group, as in `hydra.runtime.choices`.

    Returns:
        One line per preset with such settings; later presets and the command line may override
        settings, and those are left out.
    """
    lines: list[str] = []
    if not GlobalHydra.instance().is_initialized():  # a worker process of a parallel sweep
        return lines
    for group in GROUPS:
        name = choices.get(group)
        settings = {} if name is None else _other_settings(group, name)
        active = [f"{key}={_text(value)}" for key, value in settings.items()
                  if _is_active(key, value, config, choices)]  # fmt: skip
        if active:
            lines.append(f"{group}={name} also sets {', '.join(active)}")
    return lines


def preset_help() -> str:
    """One line per preset for `--help`."""
    repository = _repository()
    lines = []
    for group in GROUPS:
        for name in repository.get_group_options(group):
            settings = [
                f"{key}={_text(value)}" for key, value in _other_settings(group, name).items()
            ]
            if settings:
                lines.append(f"{group}={name}: {', '.join(settings)}")
    return "\n".join(lines)


def _is_active(key: str, value: Any, config: DictConfig, choices: Mapping[str, str | None]) -> bool:
    """True if a setting has not been overridden; interpolations are not compared."""
    if key in choices:
        return bool(choices[key] == value)
    return "${" in str(value) or bool(OmegaConf.select(config, key) == value)


def _other_settings(group: str, name: str) -> dict[str, Any]:
    """Options outside its group that a yaml sets; empty if it is no preset or does not exist."""
    loaded = _repository().load_config(f"{group}/{name}")
    if loaded is None or loaded.header.get("package") != "_global_":
        return {}
    chosen = {
        entry.group.lstrip("/"): entry.value
        for entry in loaded.defaults_list or []
        if isinstance(entry, GroupDefault) and entry.group and entry.is_override()
    }
    content: Any = OmegaConf.to_container(loaded.config)
    content.pop(group, None)
    return chosen | dict(flattened(content))


def _repository() -> Any:
    loader: Any = GlobalHydra.instance().config_loader()
    return loader.repository


def _text(value: Any) -> str:
    """A value as on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)

"""The settings of a run, and the shortest labels that distinguish runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from fedrec_flower.core.instantiate import current_path, flattened
from fedrec_flower.reports.run_frames import is_engine

Settings = dict[str, Any]  # dotted name -> value, such as "model.embedding_dim" -> 128

LEAKY = " (leaky protocol)"
_NO_SETTINGS = ("defaults", "hydra", "callbacks")  # callbacks do not change results
_GROUPS = ("dataset", "model", "strategy", "partition", "federation")
# Settings that differ between repetitions of one experiment.
_VARIED = {"seed", "output_dir", "dataset.cache_dir"}
RESULT_NEUTRAL = {"checkpoint_every", "resume"}
"""Settings without influence on results."""
FAILURE_LIMITS = {"min_completion", "max_retries", "reply_timeout"}
"""Limits at which a run fails; a resumed run may have other limits."""
# Optional groups; runs of earlier versions lack them.
_OPTIONAL = ("privacy", "secure_aggregation", "compression", "faults", "attack")
# Settings that runs of earlier versions lack, with the value that held then.
_BEFORE = {
    "evaluation.test_history": "train",
    "reply_timeout": 24 * 3600.0,
    "randomness": "seeded",
}
# Settings that are preferred in labels, the most important first.
_PREFERRED = [
    f"{group}.name"
    for group in (
        *("dataset", "split", "strategy", "partition"),
        *("privacy", "compression", "faults", "attack"),
    )
]


def settings_of(folder: Path, summary: Mapping[str, Any]) -> Settings:
    """Return all settings of a run, including the seed.

    Args:
        folder: the run's folder.
        summary: its summary.

    Returns:
        The settings of `config.yaml`; without that file (a run started from Python) the choices,
        rounds and overrides of the summary.

    Raises:
        ValueError: if `config.yaml` cannot be read as YAML.
    """
    file = folder / "config.yaml"
    return (
        parse(file.read_text(encoding="utf-8")) if file.exists() else _settings_of_summary(summary)
    )


def parse(text: str) -> Settings:
    """Parse the text of a `config.yaml`, without Hydra's own part.

    Raises:
        ValueError: if it is not YAML, or not a mapping.
    """
    try:
        content = dict(yaml.safe_load(text))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"config.yaml is not the configuration of a run ({error})") from error
    known = {k: v for k, v in content.items() if k not in _NO_SETTINGS}
    known |= {group: _chosen(known.get(group)) for group in _OPTIONAL}
    settings = _BEFORE | dict(flattened(known))
    # Class paths of version 0.1.0 are translated, so that its runs repeat runs of today.
    return {k: current_path(v) if k.endswith("_target_") else v for k, v in settings.items()}


def _chosen(group: Any) -> Any:
    """Return the settings of an optional group; only the name if the choice is "none"."""
    none = {"name": "none"}
    return none if not group or group.get("name") == "none" else group


def experiment(settings: Settings) -> Settings:
    """Return the settings that are equal for repetitions of an experiment (seeds or folds)."""
    # Published folds of ratings are reported as one mean; ranks are tested pairwise, fold by fold.
    folds = {"split.fold"} if settings.get("task") == "rating" else set[str]()
    apart = _VARIED | RESULT_NEUTRAL | folds
    same = {name: value for name, value in settings.items() if name not in apart}
    if source := settings.get("init_from"):
        # Runs that start from the source run of their own seed are repetitions of each other.
        same["init_from"] = str(source).removesuffix(f"/{settings.get('seed')}")
    return same


def digest(settings: Settings) -> str:
    """Return twelve hex digits that are equal for runs of one experiment."""
    text = json.dumps(experiment(settings), sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:12]


def differing(experiments: Sequence[Settings]) -> list[str]:
    """Return the names of settings that differ between experiments, preferred ones first."""
    names = dict.fromkeys([*_PREFERRED, *(name for each in experiments for name in each)])
    # Last: a class follows from the name of a choice, and transports differ only by rounding.
    last = ("federation.", "_target_")
    ordered = sorted(names, key=lambda n: (n.endswith(last[1]), n.startswith(last[0])))
    return [name for name in ordered if len({value_text(each, name) for each in experiments}) > 1]


def varied_groups(experiments: Iterable[Settings]) -> set[str]:
    """Return the groups (such as "partition") and root settings that differ between federations."""
    names = differing([each for each in experiments if is_federated(each)])
    return {name.partition(".")[0] for name in names}


def value_text(settings: Settings, name: str) -> str:
    """Format a value as on the command line; "unset" if there is none."""
    value = settings.get(name, "unset")
    return value if isinstance(value, str) else json.dumps(value)


def as_override(settings: Settings, name: str) -> str:
    """Format a setting as on the command line, such as "strategy=fedavg"."""
    return f"{name.removesuffix('.name')}={value_text(settings, name)}"


def labels(experiments: Mapping[str, Settings]) -> dict[str, str]:
    """Return a unique label of each experiment: its model and its distinguishing settings.

    A label has the fewest settings that distinguish experiments of one model: "mf,
    strategy=fedadam" and "mf, strategy=local_only", but "ease" if there is only one. It always
    states a run without federation and a leaky protocol.

    Args:
        experiments: any key -> settings, all different.

    Returns:
        The same keys -> labels, all different.
    """
    parts_of = {key: (_always(settings), _leak(settings)) for key, settings in experiments.items()}
    for name in differing(list(experiments.values())):
        for namesakes in _equal_labels(parts_of):
            if len({value_text(experiments[key], name) for key in namesakes}) > 1:
                for key in namesakes:
                    start, leak = parts_of[key]
                    parts_of[key] = f"{start}, {as_override(experiments[key], name)}", leak
    return {key: "".join(parts) for key, parts in parts_of.items()}


def _equal_labels(parts_of: Mapping[str, tuple[str, str]]) -> list[list[str]]:
    """Return groups of keys with equal labels so far."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key, name in parts_of.items():
        groups.setdefault(name, []).append(key)
    return list(groups.values())


def is_federated(settings: Settings) -> bool:
    """Return whether a run is a federation, not a reference such as a centralised run."""
    return is_engine(settings.get("federation.name"))


def choice_label(settings: Settings, group: str, experiments: Sequence[Settings]) -> str:
    """Return the choice of a group with the settings that distinguish it from equal choices.

    Args:
        settings: settings of the experiment.
        group: a group of the configuration, such as "partition".
        experiments: all experiments of the table.

    Returns:
        Text such as "silo_dirichlet alpha=0.1"; "user" if the settings are always the same.
    """
    prefix, name = f"{group}.", settings.get(f"{group}.name")
    namesakes = [each for each in experiments if each.get(f"{group}.name") == name]
    apart = [key for key in differing(namesakes) if key.startswith(prefix)]
    own = [f"{key.removeprefix(prefix)}={value_text(settings, key)}" for key in apart]
    return " ".join([str(name), *own])


def _always(settings: Settings) -> str:
    mode = "" if is_federated(settings) else f", {as_override(settings, 'federation.name')}"
    return f"{settings.get('model.name')}{mode}"


def _leak(settings: Settings) -> str:
    return LEAKY if settings.get("split.negatives") == "legacy" else ""


def _settings_of_summary(summary: Mapping[str, Any]) -> Settings:
    words = [word.lstrip("+~").partition("=") for word in summary.get("overrides") or []]
    given = {name: value for name, _, value in words if not name.startswith("hydra")}
    own = {name: value for name, value in given.items() if name not in (*_GROUPS, "split")}
    split, _, negatives = str(summary.get("protocol") or "").replace(",", "").partition(" ")
    names = {f"{group}.name": summary.get(group) for group in _GROUPS}
    rest = {name: summary.get(name) for name in ("task", "seed", "num_rounds", "clients_per_round")}
    return _BEFORE | names | {"split.name": split, "split.negatives": negatives} | own | rest

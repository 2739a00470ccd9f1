"""What a run was told: read from its folder, and said in as few words as set it apart."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from fedrec_flower.reports.run_frames import is_engine

Settings = dict[str, Any]  # dotted name -> value, such as "model.embedding_dim" -> 128

LEAKY = " (leaky protocol)"
_NO_SETTINGS = ("defaults", "hydra", "callbacks")  # callbacks do not change results
_GROUPS = ("dataset", "model", "strategy", "partition", "federation")
# What a repetition may change and still be the same experiment.
_VARIED = {"seed", "output_dir", "dataset.cache_dir"}
RESULT_NEUTRAL = {"checkpoint_every", "resume"}
"""Settings that change no number."""
FAILURE_LIMITS = {"min_completion", "max_retries", "reply_timeout"}
"""Settings that say when a run gives up, with which it may yet go on."""
# Groups one may do without; versions before one came did.
_OPTIONAL = ("privacy", "secure_aggregation", "compression", "faults", "attack")
# Likewise settings, and what was so before they came.
_BEFORE = {
    "evaluation.test_history": "train",
    "reply_timeout": 24 * 3600.0,
    "randomness": "seeded",
}
# Where runs of a model differ in many settings, one of these says it best; earlier ones first.
_TELLING = [
    f"{group}.name"
    for group in (
        *("dataset", "split", "strategy", "partition"),
        *("privacy", "compression", "faults", "attack"),
    )
]


def settings_of(folder: Path, summary: Mapping[str, Any]) -> Settings:
    """Everything a run was told, the seed included.

    Args:
        folder: the run's folder.
        summary: its summary.

    Returns:
        The settings of `config.yaml`; without one (the run was started from Python) the choices,
        rounds and overrides that the summary names.

    Raises:
        ValueError: if `config.yaml` cannot be read as YAML.
    """
    file = folder / "config.yaml"
    return parse(file.read_text(encoding="utf-8")) if file.exists() else _told_by(summary)


def parse(text: str) -> Settings:
    """Read the text of a `config.yaml`, Hydra's own part left out.

    Raises:
        ValueError: if it is no YAML, or no mapping.
    """
    try:
        content = dict(yaml.safe_load(text))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise ValueError(f"config.yaml is not the configuration of a run ({error})") from error
    known = {k: v for k, v in content.items() if k not in _NO_SETTINGS}
    known |= {group: _chosen(known.get(group)) for group in _OPTIONAL}
    return _BEFORE | dict(flattened(known))


def _chosen(group: Any) -> Any:
    """The settings of an optional group; nothing but the name where nothing was chosen."""
    nothing = {"name": "none"}
    return nothing if not group or group.get("name") == "none" else group


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, their names joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def experiment(settings: Settings) -> Settings:
    """The settings that two runs share if they are repetitions of each other: seeds, or folds."""
    # Published folds of ratings are reported as one mean; ranks are tested pairwise, fold by fold.
    folds = {"split.fold"} if settings.get("task") == "rating" else set[str]()
    apart = _VARIED | RESULT_NEUTRAL | folds
    same = {name: value for name, value in settings.items() if name not in apart}
    if source := settings.get("init_from"):
        # A run that starts from the one of its own seed repeats what another does from its own.
        same["init_from"] = str(source).removesuffix(f"/{settings.get('seed')}")
    return same


def digest(settings: Settings) -> str:
    """Twelve hex digits, the same for the same experiment: neither seed nor place matters."""
    text = json.dumps(experiment(settings), sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:12]


def differing(experiments: Sequence[Settings]) -> list[str]:
    """The names of settings that are not the same in all experiments, most telling first."""
    names = dict.fromkeys([*_TELLING, *(name for each in experiments for name in each)])
    # Last: the name of a choice tells its class, and engines differ by rounding at most.
    last = ("federation.", "_target_")
    ordered = sorted(names, key=lambda n: (n.endswith(last[1]), n.startswith(last[0])))
    return [name for name in ordered if len({value_text(each, name) for each in experiments}) > 1]


def varied_groups(experiments: Iterable[Settings]) -> set[str]:
    """What differs between federations: groups such as "partition", and settings of no group."""
    names = differing([each for each in experiments if is_federated(each)])
    return {name.partition(".")[0] for name in names}


def value_text(settings: Settings, name: str) -> str:
    """A value as one would write it on the command line; "unset" where there is none."""
    value = settings.get(name, "unset")
    return value if isinstance(value, str) else json.dumps(value)


def as_override(settings: Settings, name: str) -> str:
    """A setting as one would write it on the command line, such as "strategy=fedavg"."""
    return f"{name.removesuffix('.name')}={value_text(settings, name)}"


def labels(experiments: Mapping[str, Settings]) -> dict[str, str]:
    """Give each experiment a name of its own: its model, and what sets it apart from namesakes.

    As few settings are said as tell namesakes apart: "mf, strategy=fedadam" and "mf,
    strategy=local_only", but "ease" where there is one. That a run is no federation, or that its
    protocol leaks, is always said.

    Args:
        experiments: any key to settings that differ from each other's.

    Returns:
        The same keys to labels, no two alike.
    """
    told = {key: (_always(settings), _leak(settings)) for key, settings in experiments.items()}
    for name in differing(list(experiments.values())):
        for namesakes in _alike(told):
            if len({value_text(experiments[key], name) for key in namesakes}) > 1:
                for key in namesakes:
                    begun, leak = told[key]
                    told[key] = f"{begun}, {as_override(experiments[key], name)}", leak
    return {key: "".join(parts) for key, parts in told.items()}


def _alike(told: Mapping[str, tuple[str, str]]) -> list[list[str]]:
    """Keys of the experiments that so far are called the same."""
    groups: dict[tuple[str, str], list[str]] = {}
    for key, name in told.items():
        groups.setdefault(name, []).append(key)
    return list(groups.values())


def is_federated(settings: Settings) -> bool:
    """Whether a run is one of a federation, rather than what federations are compared with."""
    return is_engine(settings.get("federation.name"))


def choice_label(settings: Settings, group: str, experiments: Sequence[Settings]) -> str:
    """What was chosen of a group, with what sets it apart from others of its name.

    Args:
        settings: of the experiment asked about.
        group: a group of the configuration, such as "partition".
        experiments: all that are shown side by side.

    Returns:
        Such as "silo_dirichlet alpha=0.1"; "user" where it is always the same.
    """
    prefix, name = f"{group}.", settings.get(f"{group}.name")
    namesakes = [each for each in experiments if each.get(f"{group}.name") == name]
    apart = [key for key in differing(namesakes) if key.startswith(prefix)]
    own = [f"{key.removeprefix(prefix)}={value_text(settings, key)}" for key in apart]
    return " ".join([str(name), *own])


def _always(settings: Settings) -> str:
    beside = "" if is_federated(settings) else f", {as_override(settings, 'federation.name')}"
    return f"{settings.get('model.name')}{beside}"


def _leak(settings: Settings) -> str:
    return LEAKY if settings.get("split.negatives") == "legacy" else ""


def _told_by(summary: Mapping[str, Any]) -> Settings:
    words = [word.lstrip("+~").partition("=") for word in summary.get("overrides") or []]
    given = {name: value for name, _, value in words if not name.startswith("hydra")}
    own = {name: value for name, value in given.items() if name not in (*_GROUPS, "split")}
    split, _, negatives = str(summary.get("protocol") or "").replace(",", "").partition(" ")
    names = {f"{group}.name": summary.get(group) for group in _GROUPS}
    rest = {name: summary.get(name) for name in ("task", "seed", "num_rounds", "clients_per_round")}
    return _BEFORE | names | {"split.name": split, "split.negatives": negatives} | own | rest

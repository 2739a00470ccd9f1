"""Composes the configuration of a run with Hydra: schema, resolvers, plain values, config.yaml."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import flattened
from fedrec_flower.experiment import plugins
from fedrec_flower.experiment.presets import preset_help

_PACKAGE = Path(__file__).parents[1]
# In a wheel, conf is inside the package; in a checkout, it is next to the package.
CONF = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
PATHS = (
    "output_dir",
    "resume",
    "init_from",
    "dataset.path",
    "dataset.cache_dir",
    "dataset.items_path",
    "dataset.users_path",
)
"""Options whose values are paths."""


@dataclass
class Schema:
    """Root of the configuration; Hydra rejects any other name and any other type."""

    dataset: Any = MISSING
    split: Any = MISSING
    partition: Any = MISSING
    training: Any = MISSING
    strategy: Any = MISSING
    privacy: Any = MISSING
    secure_aggregation: Any = MISSING
    compression: Any = MISSING
    faults: Any = MISSING
    attack: Any = MISSING
    evaluation: Any = MISSING
    model: Any = MISSING
    federation: Any = MISSING
    callbacks: Any = MISSING
    task: str = MISSING
    seed: int = MISSING
    randomness: str = MISSING
    num_rounds: int = MISSING
    clients_per_round: int | None = MISSING
    min_completion: float = MISSING
    max_retries: int = MISSING
    reply_timeout: float = MISSING
    finetune_epochs: int = MISSING
    init_from: str | None = MISSING
    freeze: list[str] = MISSING
    patience: int | None = MISSING
    release: str | None = MISSING
    checkpoint_every: int | None = MISSING
    resume: str | None = MISSING
    output_dir: str = MISSING


plugins.register()
ConfigStore.instance().store(name="schema", node=Schema)
# Hydra creates the run folder before any code of this package runs.
OmegaConf.register_new_resolver("fedrec.expanded", lambda path: str(Path(path).expanduser()))


def _aggregation(privacy: DictConfig) -> str:
    """Default of `strategy.aggregation`, as the privacy mechanism allows.

    A mechanism that hides which clients have an item cannot divide by their number.
    """
    hides_rows = privacy.name in ("central_dp", "local_dp") or privacy.get("dense", False)
    return "all_clients" if hides_rows else "touched_clients"


OmegaConf.register_new_resolver("aggregation", _aggregation)
OmegaConf.register_new_resolver("fedrec.presets", preset_help)


def compose(overrides: Sequence[str]) -> tuple[dict[str, Any], Path]:
    """Compose a configuration in Python: for notebooks, tests and `flwr run`.

    Args:
        overrides: as on the command line, such as "model=ncf".

    Returns:
        The resolved configuration, and the path of its run folder, which is not created.

    Raises:
        ConfigError: if an option does not exist or has an impossible value.
    """
    config = compose_unresolved(overrides)
    if config.resume is not None:
        raise ConfigError(
            "resume= works on the command line only: in Python, pass the folder that "
            "experiment.resume.resume returns to experiment.run.run"
        )
    resolved = resolve(config) | {"overrides": list(overrides)}
    return resolved, Path(resolved["output_dir"]).expanduser()


def compose_deployment(overrides: Sequence[str]) -> tuple[dict[str, Any], Path, str]:
    """Compose the configuration of a run that `flwr run` starts.

    Args:
        overrides: as on the command line.

    Returns:
        The resolved configuration, the path of its run folder, which is not created, and the text
        of its config.yaml.

    Raises:
        ConfigError: if `federation` is chosen, because Flower carries the messages.
    """
    chosen = [word for word in overrides if word.partition("=")[0] == "federation"]
    if chosen:
        raise ConfigError(f"{chosen[0]} cannot be chosen under `flwr run`: leave it out")
    words = [*overrides, "federation=deployment"]
    config, folder = compose(words)
    return config, folder, config_yaml(compose_unresolved(words))


def compose_unresolved(overrides: Sequence[str]) -> DictConfig:
    """Compose a configuration whose interpolations are not resolved.

    Args:
        overrides: as on the command line.
    """
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def resolve(config: DictConfig) -> dict[str, Any]:
    """Convert a complete configuration to plain values.

    Raises:
        ConfigError: if a name is not in the schema, or a group has no values.
    """
    names = [field.name for field in fields(Schema)]
    for name in config:
        if name not in names:
            raise ConfigError(unknown_option(str(name), names))
    plain = dict(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]  # a mapping at the root
    require_paths({str(name): value for name, value in plain.items()})
    for field in fields(Schema):
        # A repeated run has the values of each group, but no groups to choose from.
        if field.type is Any and not isinstance(plain[field.name], dict):
            raise ConfigError(
                f"{field.name}={plain[field.name]} cannot be chosen here: set the values below "
                f"{field.name} one by one, or leave --config-path out"
            )
    return {str(name): value for name, value in plain.items()}


def config_yaml(config: DictConfig) -> str:
    """Text of the run's config.yaml."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return repeatable(plain)


def require_paths(settings: Mapping[str, Any]) -> None:
    """Reject an empty path, which would mean the current folder.

    Raises:
        ConfigError: names the option.
    """
    for name, value in flattened(settings):
        if name in PATHS and value == "":
            raise ConfigError(f"{name} is empty: give it a path, or leave it out")


def repeatable(settings: Mapping[str, Any]) -> str:
    """Text of a config.yaml: `--config-path` with its folder repeats the run, in a new folder.

    Args:
        settings: the settings, resolved.
    """
    original = OmegaConf.load(CONF / "config.yaml")
    logging_defaults = [entry for entry in original.defaults if "override" in str(entry)]
    header = {"defaults": ["schema", "_self_", *logging_defaults], "hydra": original.hydra}
    output_dir = OmegaConf.to_container(original)["output_dir"]  # type: ignore[call-overload, index]  # a mapping at the root
    saved = {**settings, "resume": None, "output_dir": output_dir}
    return OmegaConf.to_yaml(OmegaConf.merge(OmegaConf.create(header), OmegaConf.create(saved)))


def unknown_option(option: str, known: Iterable[str]) -> str:
    """Message for an option that does not exist.

    Args:
        option: as the user wrote it, such as "model.embeding_dim".
        known: every option.
    """
    names = [name for name in known if not name.endswith("_target_")]
    near = _nearest(option, names)
    fix = f"did you mean {near}?" if near else _choices(option, names)
    return f"{option} does not exist: {fix}"


def _nearest(option: str, known: Sequence[str]) -> str | None:
    """The most similar option: first by the last part of the name, as the group may be missing."""
    leaf = option.rpartition(".")[2]
    same_leaf = [name for name in known if name.rpartition(".")[2] == leaf]
    similar = get_close_matches(option, known, n=1, cutoff=0.75)
    return next(iter([*same_leaf, *similar]), None)


def _choices(option: str, known: Sequence[str]) -> str:
    group = option.rpartition(".")[0]
    siblings = [name for name in known if name.rpartition(".")[0] == group]
    return f"choose from {', '.join(siblings)}" if siblings else "--cfg all shows every option"

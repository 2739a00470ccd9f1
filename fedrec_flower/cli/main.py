"""Command line: composes the configuration with Hydra and prints errors as one sentence."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrec_flower.cli.arguments import (
    expand_resume,
    plain_configurations,
    quote_paths,
    repeatable,
    require_paths,
    take_plugins,
)
from fedrec_flower.cli.error_messages import reword, unknown_option, unreadable, unusable
from fedrec_flower.core.errors import ConfigError, FedrecError
from fedrec_flower.core.files import replace_unprintable
from fedrec_flower.core.signals import exit_code, interrupt_on_signal

if TYPE_CHECKING:
    from fedrec_flower.experiment.run_folder import RunFolder

_HERE = Path(__file__).parents[1]
# In a wheel, conf is inside the package; in a checkout, it is next to the package.
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
# Exit codes.
_MISTAKE = 1
_USAGE = 2


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


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(config: DictConfig) -> None:
    """Run one experiment, or one job of a sweep."""
    _log_to_stderr()  # a job of a parallel sweep runs in a separate process
    try:
        with interrupt_on_signal():
            _run(config)
    except Exception as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # Hydra names the job and continues with the next one
        # Hydra would print its own message for any other exception.
        raise SystemExit(_MISTAKE) from error


def _run(config: DictConfig) -> None:
    # Imported here, so that --help and a misspelt option return quickly.
    from fedrec_flower.experiment.resume import claimed, resume, told_before
    from fedrec_flower.experiment.run_folder import RunFolder

    settings = HydraConfig.get()
    resolved = _resolved(config)
    text = _repeatable(config)
    path = Path(settings.runtime.output_dir)
    overrides = list(settings.overrides.task) if config.resume is None else told_before(path)
    may_exist = config.resume is not None or settings.mode is RunMode.MULTIRUN
    try:
        with claimed(path):
            folder = resume(path, text) if may_exist else RunFolder.create(path, text)
            if folder is not None:
                _fill(folder, resolved | {"overrides": overrides})
    except KeyboardInterrupt as interrupt:
        shown = _shown(path, Path(settings.runtime.cwd))
        raise KeyboardInterrupt(f"; resume={shown} continues it") from interrupt
    print(_shown(path, Path(settings.runtime.cwd)))  # noqa: T201


def _fill(folder: "RunFolder", config: dict[str, Any]) -> None:
    from rich.console import Console

    from fedrec_flower.experiment.run import run
    from fedrec_flower.reports.markdown import final_table

    summary = run(config, folder)
    Console().print(final_table(summary))


def compose(overrides: list[str]) -> tuple[dict[str, Any], Path]:
    """Compose a configuration in Python: for notebooks, tests and `flwr run`.

    Args:
        overrides: as on the command line, such as "model=ncf".

    Returns:
        The resolved configuration, and the path of its run folder, which is not created.

    Raises:
        ConfigError: if an option does not exist or has an impossible value.
    """
    config = _composed(overrides)
    if config.resume is not None:
        raise ConfigError(
            "resume= works on the command line only: in Python, pass the folder that "
            "results.resume returns to experiment.run"
        )
    resolved = _resolved(config) | {"overrides": overrides}
    return resolved, Path(resolved["output_dir"]).expanduser()


def compose_deployment(overrides: list[str]) -> tuple[dict[str, Any], Path, str]:
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
    return config, folder, _repeatable(_composed(words))


def _composed(overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides)


def _resolved(config: DictConfig) -> dict[str, Any]:
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


def _repeatable(config: DictConfig) -> str:
    """Text of the run's config.yaml."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return repeatable(plain, CONF)


def _shown(folder: Path, here: Path) -> str:
    """The folder as a user would type it in the working directory `here`."""
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def main() -> None:
    """Run the command line.

    Exit codes: 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.
    """
    if sys.argv[1:2] == ["compare"]:
        from fedrec_flower.reports.build import main as compare  # here: it imports matplotlib

        compare(sys.argv[2:])
        return
    _log_to_stderr()
    whole_trace = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # With this variable Hydra raises errors instead of printing them.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    words = sys.argv[1:]
    try:
        with interrupt_on_signal(), _prepared_arguments(words):
            sys.argv[1:] = words
            _job()
    except KeyboardInterrupt as interrupt:
        message = f"interrupted: the results so far are in the run folder{interrupt}"
        sys.exit(_print_error(message, exit_code()))
    except (Exception, SystemExit) as error:
        mistake = error.__cause__ if isinstance(error, SystemExit) else error
        if mistake is None:
            raise
        if isinstance(mistake, BrokenPipeError):  # the reader, such as `head`, has closed the pipe
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_MISTAKE)
        if whole_trace:
            raise mistake from None
        sys.exit(_print_error(explain(mistake), _USAGE if _is_usage(mistake) else _MISTAKE))


@contextmanager
def _prepared_arguments(words: list[str]) -> Iterator[None]:
    """Prepare the command-line arguments for Hydra, in place; see `arguments`."""
    take_plugins(words)
    quote_paths(words)
    expand_resume(words)
    with plain_configurations(words, CONF):
        yield


def explain(error: BaseException) -> str:
    """Describe an error and its fix in one sentence."""
    if isinstance(error, FedrecError):
        return str(error)
    if isinstance(error, OverrideParseException):
        return unreadable(error.override, str(error))
    if isinstance(error, HydraException | OmegaConfBaseException):
        return reword(str(error), str(error.__cause__ or ""), _options)
    if isinstance(error, OSError):
        return unusable(error)
    if _is_usage(error):
        return str(error)
    kind = type(error).__name__
    return f"{kind}: {error}; this is a bug, HYDRA_FULL_ERROR=1 shows where"


def _is_usage(error: BaseException) -> bool:
    """True if the command line cannot be parsed."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals["__name__"] if trace else ""
    flags = isinstance(error, ValueError) and raised_in == "hydra._internal.utils"
    return flags or isinstance(error, OverrideParseException)


def _options() -> list[str]:
    """Every option of the groups that the command line chooses."""
    choices = [word for word in sys.argv[1:] if (CONF / word.partition("=")[0]).is_dir()]
    try:
        config = _composed(choices)
    except HydraException:
        config = _composed([])
    return list(_names(config, ""))


def _names(node: Any, prefix: str) -> Iterator[str]:
    for name in map(str, node if isinstance(node, DictConfig) else ()):
        yield f"{prefix}{name}"
        value = None if OmegaConf.is_missing(node, name) else node[name]
        yield from _names(value, f"{prefix}{name}.")


def _print_error(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)  # noqa: T201
    return code


def _log_to_stderr() -> None:
    """Show the log of this package, and the jobs of a sweep that Hydra starts."""
    replace_unprintable()
    logging.basicConfig(format="%(message)s")
    for name in ("fedrec_flower", "hydra"):
        logging.getLogger(name).setLevel(logging.INFO)

"""The command line: Hydra composes, errors become one sentence, the last line is the run folder."""

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
from fedrec_flower.core.files import print_anything
from fedrec_flower.core.signals import exit_code, interrupting

if TYPE_CHECKING:
    from fedrec_flower.experiment.run_folder import RunFolder

_HERE = Path(__file__).parents[1]
# In a wheel conf lies inside the package, in a checkout beside it.
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"
_MISTAKE, _USAGE = 1, 2  # exit codes


@dataclass
class Schema:
    """The root of the configuration; Hydra refuses any other name and any other type."""

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
# Hydra makes the run folder before anything of ours runs.
OmegaConf.register_new_resolver("fedrec.expanded", lambda path: str(Path(path).expanduser()))


def _aggregation(privacy: DictConfig) -> str:
    """How rows are averaged unless the command line says so: as privacy allows.

    A mechanism that hides who had an item cannot divide by their number.
    """
    hides_rows = privacy.name in ("central_dp", "local_dp") or privacy.get("dense", False)
    return "all_clients" if hides_rows else "touched_clients"


OmegaConf.register_new_resolver("aggregation", _aggregation)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(config: DictConfig) -> None:
    """One experiment, or one job of a sweep."""
    _log_to_stderr()  # a job of a parallel sweep has a process of its own
    try:
        with interrupting():
            _run(config)
    except Exception as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # Hydra names the job, and goes on with the others
        # Hydra would print a line of its own on any other exception.
        raise SystemExit(_MISTAKE) from error


def _run(config: DictConfig) -> None:
    # Imported here, so that --help and a misspelt option answer at once.
    from fedrec_flower.experiment.resume import claimed, resume, told_before
    from fedrec_flower.experiment.run_folder import RunFolder

    settings = HydraConfig.get()
    resolved, text = _resolved(config), _repeatable(config)
    path = Path(settings.runtime.output_dir)
    overrides = list(settings.overrides.task) if config.resume is None else told_before(path)
    goes_on = config.resume is not None or settings.mode is RunMode.MULTIRUN
    try:
        with claimed(path):
            folder = (resume if goes_on else RunFolder.create)(path, text)
            if folder is not None:
                _fill(folder, resolved | {"overrides": overrides})
    except KeyboardInterrupt as interrupt:
        shown = _shown(path, Path(settings.runtime.cwd))
        raise KeyboardInterrupt(f"; resume={shown} goes on with it") from interrupt
    print(_shown(path, Path(settings.runtime.cwd)))  # noqa: T201


def _fill(folder: "RunFolder", config: dict[str, Any]) -> None:
    from rich.console import Console

    from fedrec_flower.experiment.run import run
    from fedrec_flower.reports.markdown import final_table

    summary = run(config, folder)
    Console().print(final_table(summary))


def compose(overrides: list[str]) -> tuple[dict[str, Any], Path]:
    """Compose a configuration outside the command line: for notebooks, tests and `flwr run`.

    Args:
        overrides: as on the command line, such as "model=ncf".

    Returns:
        The resolved configuration and the run folder it names, not yet made.
    """
    config = _composed(overrides)
    if config.resume is not None:
        raise ConfigError(
            "resume= is for the command line alone: in Python, give the folder that "
            "results.resume returns to experiment.run"
        )
    resolved = _resolved(config) | {"overrides": overrides}
    return resolved, Path(resolved["output_dir"]).expanduser()


def compose_deployment(overrides: list[str]) -> tuple[dict[str, Any], Path, str]:
    """Compose the configuration of a run that `flwr run` has started.

    Args:
        overrides: as on the command line.

    Returns:
        The resolved configuration, the run folder that it names, not yet made, and the text of
        its config.yaml.

    Raises:
        ConfigError: if an engine is chosen: Flower has started one already.
    """
    chosen = [word for word in overrides if word.partition("=")[0] == "federation"]
    if chosen:
        raise ConfigError(f"{chosen[0]} cannot be chosen, for Flower carries the run: leave it out")
    words = [*overrides, "federation=deployment"]
    config, folder = compose(words)
    return config, folder, _repeatable(_composed(words))


def _composed(overrides: list[str]) -> DictConfig:
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides)


def _resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, if nothing is missing and nothing unknown was added.

    Raises:
        ConfigError: if there is a name that the schema does not know.
    """
    names = [field.name for field in fields(Schema)]
    for name in config:
        if name not in names:
            raise ConfigError(unknown_option(str(name), names))
    plain = dict(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))  # type: ignore[arg-type]  # a mapping at the root
    require_paths({str(name): value for name, value in plain.items()})
    for field in fields(Schema):
        # Where a run is repeated, there are no groups left to choose from.
        if field.type is Any and not isinstance(plain[field.name], dict):
            raise ConfigError(
                f"{field.name}={plain[field.name]} cannot be chosen here: set the values below "
                f"{field.name} one by one, or leave --config-path out"
            )
    return {str(name): value for name, value in plain.items()}


def _repeatable(config: DictConfig) -> str:
    """What config.yaml holds."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    return repeatable(plain, CONF)


def _shown(folder: Path, here: Path) -> str:
    """The folder as a user would type it who stands `here`."""
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def main() -> None:
    """Run the command line.

    Its exit code is 1 for a mistake, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM and 129
    for SIGHUP.
    """
    if sys.argv[1:2] == ["compare"]:
        from fedrec_flower.reports.build import main as compare  # here: it imports matplotlib

        compare(sys.argv[2:])
        return
    _log_to_stderr()
    whole_trace = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # Hydra prints errors its own way unless told to let them through.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    words = sys.argv[1:]
    try:
        with interrupting(), _understood(words):
            sys.argv[1:] = words
            _job()
    except KeyboardInterrupt as interrupt:
        kept = f"interrupted: the run folder keeps what the run had{interrupt}"
        sys.exit(_say(kept, exit_code()))
    except (Exception, SystemExit) as error:
        mistake = error.__cause__ if isinstance(error, SystemExit) else error
        if mistake is None:
            raise
        if isinstance(mistake, BrokenPipeError):  # whoever read has read enough, such as `head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_MISTAKE)
        if whole_trace:
            raise mistake from None
        sys.exit(_say(explain(mistake), _USAGE if _is_usage(mistake) else _MISTAKE))


@contextmanager
def _understood(words: list[str]) -> Iterator[None]:
    """Change the words of the command line into those that Hydra understands; see `arguments`."""
    take_plugins(words)
    quote_paths(words)
    expand_resume(words)
    with plain_configurations(words, CONF):
        yield


def explain(error: BaseException) -> str:
    """One sentence on what went wrong and what to change."""
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
    """Whether the command line cannot even be read."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals["__name__"] if trace else ""
    flags = isinstance(error, ValueError) and raised_in == "hydra._internal.utils"
    return flags or isinstance(error, OverrideParseException)


def _options() -> list[str]:
    """Every option of the choices that the command line makes."""
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


def _say(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)  # noqa: T201
    return code


def _log_to_stderr() -> None:
    """Show what the program says, and which job of a sweep Hydra begins."""
    print_anything()
    logging.basicConfig(format="%(message)s")
    for name in ("fedrec_flower", "hydra"):
        logging.getLogger(name).setLevel(logging.INFO)

"""Command line: composes the configuration with Hydra and prints errors as one sentence."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrec_flower.cli.arguments import (
    expand_resume,
    plain_configurations,
    quote_paths,
    take_plugins,
)
from fedrec_flower.cli.error_messages import reword, unreadable, unusable
from fedrec_flower.core.errors import FedrecError
from fedrec_flower.core.files import replace_unprintable
from fedrec_flower.core.signals import exit_code, interrupt_on_signal
from fedrec_flower.experiment.composition import CONF, compose_unresolved, config_yaml, resolve
from fedrec_flower.experiment.presets import preset_lines

if TYPE_CHECKING:
    from fedrec_flower.experiment.run_folder import RunFolder

_LOG = logging.getLogger(__name__)

# Exit codes.
_MISTAKE = 1
_USAGE = 2


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(config: DictConfig) -> float | None:
    """Run one experiment, or one job of a sweep.

    Returns:
        The validation metric of the selected round (`evaluation.select_by`), the objective of
        Hydra sweepers that optimise; None without validation data.
    """
    _log_to_stderr()  # a job of a parallel sweep runs in a separate process
    try:
        with interrupt_on_signal():
            return _run(config)
    except Exception as error:
        if HydraConfig.get().mode is RunMode.MULTIRUN:
            raise  # Hydra names the job and continues with the next one
        # Hydra would print its own message for any other exception.
        raise SystemExit(_MISTAKE) from error


def _run(config: DictConfig) -> float | None:
    # Imported here, so that --help and a misspelt option return quickly.
    from fedrec_flower.experiment.resume import (
        lock_run_folder,
        read_summary,
        recorded_overrides,
        resume,
    )
    from fedrec_flower.experiment.run_folder import RunFolder
    from fedrec_flower.experiment.summary import selected_validation

    settings = HydraConfig.get()
    resolved = resolve(config)
    text = config_yaml(config)
    for line in preset_lines(config, settings.runtime.choices):
        _LOG.info("%s", line)
    path = Path(settings.runtime.output_dir)
    overrides = list(settings.overrides.task) if config.resume is None else recorded_overrides(path)
    may_exist = config.resume is not None or settings.mode is RunMode.MULTIRUN
    try:
        with lock_run_folder(path):
            folder = resume(path, text) if may_exist else RunFolder.create(path, text)
            if folder is not None:
                _fill(folder, resolved | {"overrides": overrides})
            summary = read_summary(path)
    except KeyboardInterrupt as interrupt:
        shown = _shown(path, Path(settings.runtime.cwd))
        raise KeyboardInterrupt(f"; resume={shown} continues it") from interrupt
    print(_shown(path, Path(settings.runtime.cwd)))  # noqa: T201
    return selected_validation(summary, resolved["evaluation"]["select_by"])


def _fill(folder: "RunFolder", config: dict[str, Any]) -> None:
    from rich.console import Console

    from fedrec_flower.experiment.run import run
    from fedrec_flower.reports.markdown import final_table

    summary = run(config, folder)
    Console().print(final_table(summary))


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
    with plain_configurations(words):
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
    names = {word: word.partition("=")[0].partition("@")[0] for word in sys.argv[1:]}
    choices = [word for word, name in names.items() if (CONF / name).is_dir()]
    try:
        config = compose_unresolved(choices)
    except HydraException:
        config = compose_unresolved([])
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

"""The command line: Hydra composes, errors become one sentence, the last line is the run folder."""

import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedrec_flower.errors import FedrecError

_HERE = Path(__file__).parent
# In a wheel conf lies inside the package, in a checkout beside it.
CONF = _HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf"


@dataclass
class Schema:
    """The root of the configuration; Hydra refuses any other name and any other type."""

    dataset: Any = MISSING
    split: Any = MISSING
    partition: Any = MISSING
    training: Any = MISSING
    strategy: Any = MISSING
    privacy: Any = MISSING
    evaluation: Any = MISSING
    model: Any = MISSING
    federation: Any = MISSING
    task: str = MISSING
    seed: int = MISSING
    num_rounds: int = MISSING
    clients_per_round: int | None = MISSING
    output_dir: str = MISSING


ConfigStore.instance().store(name="schema", node=Schema)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def _job(config: DictConfig) -> None:
    """One experiment, or one job of a sweep."""
    # Imported here, so that --help and a misspelt option answer at once.
    from rich.console import Console

    from fedrec_flower.experiment import run
    from fedrec_flower.results import RunFolder, final_table

    settings = HydraConfig.get()
    folder = RunFolder.create(Path(settings.runtime.output_dir))
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]  # a mapping at the root
    _save(config, folder.path)
    summary = run(resolved | {"overrides": list(settings.overrides.task)}, folder)
    Console().print(final_table(summary))
    print(_shown(folder.path))  # noqa: T201


def compose(overrides: list[str]) -> tuple[dict[str, Any], Path]:
    """Compose a configuration outside the command line: for notebooks, tests and `flwr run`.

    Args:
        overrides: as on the command line, such as "model=ncf".

    Returns:
        The resolved configuration and the run folder it names, not yet made.
    """
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", overrides)
    resolved: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]  # a mapping at the root
    return resolved | {"overrides": overrides}, Path(config.output_dir)


def _save(config: DictConfig, folder: Path) -> None:
    """Write config.yaml so that `--config-path` on the folder repeats the run, in a new folder."""
    saved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    original = OmegaConf.load(CONF / "config.yaml")
    saved.output_dir = OmegaConf.to_container(original)["output_dir"]  # type: ignore[call-overload, index]
    defaults = [{"override hydra/job_logging": "disabled"}, "_self_"]
    whole = {"defaults": defaults, "hydra": original.hydra}
    OmegaConf.save(OmegaConf.merge(OmegaConf.create(whole), saved), folder / "config.yaml")


def _shown(folder: Path) -> str:
    """The folder as a user would type it."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def main() -> None:
    """Run the command line; exit code 1 for a mistake, 2 for wrong usage, 130 for Ctrl-C."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fedrec_flower").setLevel(logging.INFO)
    whole_trace = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # Hydra prints errors its own way unless told to let them through.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    _make_config_path_absolute(sys.argv)
    try:
        _job()
    except KeyboardInterrupt:
        sys.exit(_say("interrupted: the run folder keeps what the run had", 130))
    except Exception as error:
        if whole_trace:
            raise
        sys.exit(_say(explain(error), 1))


def explain(error: BaseException) -> str:
    """One sentence on what went wrong and what to change."""
    if isinstance(error, FedrecError):
        return str(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        lines = [line.strip() for line in str(error).splitlines()]
        cause = str(error.__cause__ or "").partition("\n")[0]
        return " ".join(line for line in [*lines, cause] if line and "full_key" not in line)
    kind = type(error).__name__
    return f"{kind}: {error}; this is a bug, HYDRA_FULL_ERROR=1 shows where"


def _say(sentence: str, code: int) -> int:
    print(f"error: {sentence}", file=sys.stderr)  # noqa: T201
    return code


def _make_config_path_absolute(arguments: list[str]) -> None:
    """Let --config-path be relative to where the user stands; Hydra takes it from this file."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name not in ("--config-path", "-cp"):
            continue
        if equals:
            arguments[place] = f"{name}={Path(value).absolute()}"
        elif place + 1 < len(arguments):
            arguments[place + 1] = str(Path(arguments[place + 1]).absolute())

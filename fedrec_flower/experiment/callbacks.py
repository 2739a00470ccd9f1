"""Callbacks of a run: table of rounds, progress bar, checkpoints.

The group `callbacks` of the configuration lists them, and they are called in its order. A callback
of another package extends `Callback` and is added by `+callbacks.mine._target_=my_package.Mine` or
by a yaml of that group. A constructor gets those of these arguments that it names: `folder`
(`RunFolder`), `summary` (`RunSummary`), `num_rounds`, `select_by` (metric of model selection). A
callback that is a context manager is entered before the first round and left after the last one.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import isnan
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from typing_extensions import override

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.interactions import Part
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.summary import RunSummary
from fedrec_flower.federation.results import Evaluated, TrainedRound
from fedrec_flower.federation.server.callback import Callback


@contextmanager
def open_callbacks(
    nodes: Mapping[str, Mapping[str, Any] | None], **available: Any
) -> Iterator[list[Callback]]:
    """Build the callbacks of a configuration; those that are context managers are entered.

    Args:
        nodes: the group `callbacks`: a node for each name, or null for none.
        available: arguments that constructors may name; see the module.

    Raises:
        ConfigError: names a callback that cannot be built.
    """
    callbacks: list[Callback] = []
    with ExitStack() as stack:
        for name, node in nodes.items():
            if node is None:
                continue
            callback = build(f"callbacks.{name}", node, **available)
            if hasattr(callback, "__exit__"):
                stack.enter_context(callback)
            callbacks.append(callback)
        yield callbacks


class SetupTimer(Callback):
    """Records the end of the set-up in the summary; part of every run.

    Args:
        summary: of the run.
    """

    def __init__(self, summary: RunSummary) -> None:
        self._summary = summary

    @override
    def on_start(self, round_: int) -> None:
        self._summary.start_training(round_)


class RoundsTable(Callback):
    """Writes rounds.csv, one row per round, phase and metric.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @override
    def after_round(self, trained: TrainedRound) -> None:
        """Write the loss, further metrics, and failures if there are any, as `lost/<kind>`."""
        counts = {f"lost/{kind}": float(count) for kind, count in sorted(trained.failures.items())}
        values = {"loss": trained.loss, **trained.metrics, **counts}
        self._folder.add_round(trained.round, "train", values, trained.num_clients)

    @override
    def after_evaluation(self, evaluated: Evaluated) -> None:
        round_, metrics, num_clients = evaluated.round, evaluated.metrics, evaluated.num_clients
        self._folder.add_round(round_, "validation", metrics[Part.VALIDATION], num_clients)
        self._folder.add_round(round_, "test", metrics[Part.TEST], num_clients)


class ProgressBar(Callback):
    """Shows a bar with current metrics and remaining time; without a terminal, one line each.

    Args:
        num_rounds: of the run.
        select_by: the validation metric that is shown.
    """

    def __init__(self, num_rounds: int, select_by: str) -> None:
        self._num_rounds = num_rounds
        self._select_by = select_by
        self._console = Console(stderr=True)
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[metrics]}"),
            TimeElapsedColumn(),
            TextColumn("<"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._loss = ""
        self._validation = "starting the engine"
        self._task = self._bar.add_task("rounds", total=num_rounds, metrics=self._validation)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the bar; it stays visible."""
        self._bar.stop()

    @override
    def on_start(self, round_: int) -> None:
        if round_:
            self._validation = ""  # the last evaluation of a resumed run is not known here
        self._bar.reset(self._task, completed=round_, metrics=self._validation)

    @override
    def after_round(self, trained: TrainedRound) -> None:
        loss = trained.loss
        self._loss = "" if isnan(loss) else f"loss {loss:.4f}"  # closed-form models have none
        text = f"{self._validation} {self._loss}".strip()
        self._bar.update(self._task, completed=trained.round, metrics=text)

    @override
    def after_evaluation(self, evaluated: Evaluated) -> None:
        value = evaluated.metrics[Part.VALIDATION].get(self._select_by)
        self._validation = "" if value is None else f"validation {self._select_by} {value:.4f}"
        text = f"{self._validation} {self._loss}"
        self._bar.update(self._task, metrics=text.strip())
        if self._bar.disable:
            line = f"round {evaluated.round}/{self._num_rounds} {text}"
            self._console.print(line.rstrip(), highlight=False)


class CheckpointWriter(Callback):
    """Writes each checkpoint, with the times of the run so far; without it no run can be resumed.

    Args:
        folder: the run's folder.
        summary: of the run.
    """

    def __init__(self, folder: RunFolder, summary: RunSummary) -> None:
        self._folder = folder
        self._summary = summary

    @override
    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        facts = {**checkpoint.facts, "record": self._summary.facts()}
        self._folder.checkpoints.write(replace(checkpoint, facts=facts))

"""The live view of a run, which also writes rounds.csv as the rounds come in."""

from collections.abc import Mapping
from dataclasses import replace
from math import isnan
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.summary import RunSummary
from fedrec_flower.federation.results import Metrics
from fedrec_flower.federation.server.callback import Callback
from fedrec_flower.federation.server.plan import Plan


class Progress(Callback):
    """Shows a bar with the current metrics and the time left; a line per evaluation in a log.

    Args:
        folder: the run's folder; rows go to its rounds.csv.
        plan: the run.
        evaluator: names the metric to show.
        record: hears when training begins, for the times in the summary.
    """

    def __init__(
        self, folder: RunFolder, plan: Plan, evaluator: Evaluator, record: RunSummary
    ) -> None:
        self._folder, self._plan, self._record = folder, plan, record
        self._select_by = evaluator.select_by
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
        self._loss, self._shown = "", "starting the engine"
        self._task = self._bar.add_task("rounds", total=plan.num_rounds, metrics=self._shown)

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
        """Leave the bar as it stands."""
        self._bar.stop()

    def on_start(self, round_: int) -> None:
        """See `Callback.on_start`; until now the engine started."""
        self._record.start_training(round_)
        if round_:
            self._shown = ""  # what was last evaluated is not known here
        self._bar.reset(self._task, completed=round_, metrics=self._shown)

    def after_round(
        self,
        round_: int,
        loss: float,
        num_clients: int,
        failures: Mapping[str, int],
        metrics: Mapping[str, float],
    ) -> None:
        """See `Callback.after_round`; what is lost has rows of its own, where anything is."""
        counted = {f"lost/{kind}": float(count) for kind, count in sorted(failures.items())}
        self._folder.add_round(round_, "train", {"loss": loss, **metrics, **counted}, num_clients)
        self._loss = "" if isnan(loss) else f"loss {loss:.4f}"  # a model of sums has none
        self._bar.update(
            self._task, completed=round_, metrics=f"{self._shown} {self._loss}".strip()
        )

    def after_evaluation(self, round_: int, metrics: Metrics, num_clients: int) -> None:
        """See `Callback.after_evaluation`."""
        self._folder.add_round(round_, "validation", metrics[Part.VALIDATION], num_clients)
        self._folder.add_round(round_, "test", metrics[Part.TEST], num_clients)
        chosen = self._select_by
        value = metrics[Part.VALIDATION].get(chosen)
        self._shown = "" if value is None else f"validation {chosen} {value:.4f}"
        self._bar.update(self._task, metrics=f"{self._shown} {self._loss}".strip())
        if self._bar.disable:
            line = f"round {round_}/{self._plan.num_rounds} {self._shown} {self._loss}"
            self._console.print(line.rstrip(), highlight=False)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `Callback.on_checkpoint`; what the run has taken so far is kept with it."""
        facts = {**checkpoint.facts, "record": self._record.facts()}
        self._folder.checkpoints.write(replace(checkpoint, facts=facts))

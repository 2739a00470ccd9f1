"""Cost of preparation, of a complete round and of an evaluation, measured in this process.

A round is complete, as `python -m fedrec_flower` runs it in process: cohort sampling, packing of
messages, training, aggregation, and the step of FedAdam.
"""

import statistics
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter, process_time

from typing_extensions import override

from fedrec_flower.benchmark.measuring import peak_memory_mb, timed
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import prepare_data, set_up
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.results import Evaluated, TrainedRound
from fedrec_flower.federation.server.callback import Callback
from fedrec_flower.federation.transport.base import federate

_IN_PROCESS = "federation=in_process"
_NUM_ROUNDS = 1_000_000  # never reached: the stopwatch ends the run

Cost = dict[str, float]


def opening(overrides: str) -> Cost:
    """Open the prepared data; prepare them first if they are not in the cache.

    Args:
        overrides: Hydra overrides, separated by blanks.

    Returns:
        seconds (wall), cpu_seconds, peak_memory_mb (of this process).
    """
    config, _ = compose([_IN_PROCESS, *overrides.split()])
    return _cost([timed(lambda: prepare_data(config))])


def training(overrides: str, cohort: int, rounds: int) -> Cost:
    """Run whole rounds, and evaluate a single client.

    Args:
        overrides: as for `opening`.
        cohort: clients a round.
        rounds: measured rounds, after a first one that is reported separately.

    Returns:
        As `opening`, medians over the rounds, and first_seconds (wall).
    """
    little_evaluation = ("evaluation.num_clients=1", f"evaluation.every={_NUM_ROUNDS}")
    _untrained, (first, _), *measured = laps(
        [*overrides.split(), *little_evaluation], cohort, 2 + rounds
    )
    return {"first_seconds": first, **_cost(measured)}


def evaluation(overrides: str, cohort: int, num_clients: int | None, repeats: int) -> Cost:
    """Evaluate after every round.

    Args:
        overrides: as for `opening`.
        cohort: clients a round.
        num_clients: clients evaluated; None for all.
        repeats: measured evaluations.

    Returns:
        As `opening`, medians over the evaluations.
    """
    evaluated = "null" if num_clients is None else num_clients
    chosen = (f"evaluation.num_clients={evaluated}", "evaluation.every=1")
    measured = laps([*overrides.split(), *chosen], cohort, 1 + 2 * repeats)
    return _cost(measured[2::2])


@dataclass(slots=True)
class _Stopwatch(Callback):
    """Callback that measures each training and evaluation, and ends the run.

    Attributes:
        wanted: number of laps after which the run ends.
        laps: wall and CPU seconds of each lap; CPU of all threads of this process.
        since: both clocks at the start of the current lap.
    """

    wanted: int
    laps: list[tuple[float, float]] = field(default_factory=list)
    since: tuple[float, float] = field(default_factory=lambda: (perf_counter(), process_time()))

    @override
    def after_round(self, trained: TrainedRound) -> None:
        self._lap()

    @override
    def after_evaluation(self, evaluated: Evaluated) -> None:
        self._lap()

    def _lap(self) -> None:
        now = perf_counter(), process_time()
        self.laps.append((now[0] - self.since[0], now[1] - self.since[1]))
        if len(self.laps) == self.wanted:
            raise _EnoughError
        self.since = now


class _EnoughError(Exception):
    """Ends a run after the last measured lap."""


def laps(overrides: list[str], cohort: int | None, wanted: int) -> list[tuple[float, float]]:
    """Measure the first laps of a run: evaluation of the untrained model, round 1, and so on.

    Args:
        overrides: Hydra overrides.
        cohort: clients a round; None for all.
        wanted: number of laps.

    Returns:
        Wall and CPU seconds of each lap.
    """
    clients = "null" if cohort is None else cohort
    endless = (f"num_rounds={_NUM_ROUNDS}", "checkpoint_every=null")
    config, _ = compose([_IN_PROCESS, *overrides, f"clients_per_round={clients}", *endless])
    with tempfile.TemporaryDirectory() as folder:
        setup = set_up(config, RunFolder.create(Path(folder)))
        watch = _Stopwatch(wanted)
        server = setup.server(config, [watch])
        initial = setup.initial(server.strategy)
        with suppress(_EnoughError):
            federate(setup.engine, server, initial, Path(folder) / "flower.log")
    return watch.laps


def _cost(laps: Sequence[tuple[float, float]]) -> Cost:
    wall, cpu = (statistics.median(seconds) for seconds in zip(*laps, strict=True))
    return {"seconds": wall, "cpu_seconds": cpu, "peak_memory_mb": peak_memory_mb()}

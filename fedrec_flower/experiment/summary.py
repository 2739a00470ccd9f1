"""Summary of a run (summary.json), updated while the run lasts."""

from collections.abc import Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.core.errors import DataError
from fedrec_flower.experiment.environment import PeakMemory
from fedrec_flower.experiment.run_folder import RunFolder

_NAMED = ("dataset", "model", "strategy", "partition", "federation")
_CONDITIONS = ("privacy", "secure_aggregation", "compression", "faults", "attack")


class RunSummary:
    """Updates summary.json; the status is running, then completed, failed or interrupted.

    Args:
        folder: the run's folder.
        config: the resolved configuration.
        saved: the checkpoint from which the run is resumed; None for a new run.
    """

    def __init__(
        self, folder: RunFolder, config: Mapping[str, Any], saved: Checkpoint | None
    ) -> None:
        self.folder = folder
        self._memory = PeakMemory()
        self._earlier: Mapping[str, Any] = {} if saved is None else saved.facts["record"]
        self._start_time = perf_counter()
        self._training_start_time = self._start_time
        environment = folder.write_environment()
        names = {group: config[group].get("name", "unnamed") for group in _NAMED}
        self.summary: dict[str, Any] = {
            "status": "running",
            **names,
            "protocol": _protocol(config),
            "task": config["task"],
            "seed": config["seed"],
            "randomness": config["randomness"],
            "num_rounds": config["num_rounds"],
            "clients_per_round": config["clients_per_round"],
            "conditions": _conditions(config),
            "overrides": config.get("overrides", []),
            "epsilon": None,  # no guarantee: infinity
            "resumed_after": list(self._earlier.get("resumed_after", [])),  # rounds
            "versions": environment["versions"],
            "commit": environment["commit"],
        }

    def __enter__(self) -> Self:
        """Write the first summary and start to measure memory."""
        self._memory.__enter__()
        self.folder.write_summary(self.summary)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last summary, also after an error."""
        self._memory.__exit__(kind, error, trace)
        if error is not None:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.summary["status"] = "interrupted" if interrupted else "failed"
            self.summary["error"] = str(error) or type(error).__name__
        self.summary |= self._peak()
        self.folder.write_summary(self.summary)

    def update(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the summary.

        Raises:
            DataError: if a resumed run has other data than at its start.
        """
        self.summary |= facts
        split = self.summary.get("split_sha256")
        earlier = self._earlier.get("split_sha256")
        if earlier not in (None, split):
            raise DataError(
                f"{self.folder.path} was started with other data (split {earlier}, now {split}): "
                "restore those data, or start a new run"
            )

    def start_training(self, after: int) -> None:
        """Mark the end of the set-up: data prepared, engine started, untrained model evaluated.

        Args:
            after: the last completed round; above 0 if the run is resumed.
        """
        self._training_start_time = perf_counter()
        if after:
            self.summary["resumed_after"].append(after)

    def seconds(self, spent: Mapping[str, float]) -> dict[str, float]:
        """Wall seconds of setup, train, evaluate and total, including those before a resume."""
        setup = self._training_start_time - self._start_time + self._earlier.get("setup", 0)
        total = perf_counter() - self._start_time + self._earlier.get("total", 0)
        return {"setup": setup, **spent, "total": total}

    def facts(self) -> dict[str, Any]:
        """JSON-able values that a resumed run needs."""
        history = {name: self.summary[name] for name in ("resumed_after", "split_sha256")}
        return {**self.seconds({}), **self._peak(), **history}

    def _peak(self) -> dict[str, Any]:
        current = {
            "peak_memory_mb": round(self._memory.megabytes, 1),
            "peak_resident_mb": round(self._memory.resident_megabytes, 1),
        }
        highest = {name: max(value, self._earlier.get(name, 0)) for name, value in current.items()}
        return {**highest, "peak_memory_measure": self._memory.measure}


def selected_validation(summary: Mapping[str, Any], metric: str) -> float | None:
    """Validation metric of the selected round: the objective of hyper-parameter searches.

    Args:
        summary: of a completed run.
        metric: `evaluation.select_by`; if the data do not allow it, the first one that they allow
            takes its place.

    Returns:
        None if the run has no validation data.
    """
    validation = summary.get("validation") or {}
    value = validation.get(metric, next(iter(validation.values()), None))
    return None if value is None else float(value)


def _conditions(config: Mapping[str, Any]) -> dict[str, str]:
    """Names of the chosen privacy, compression, faults etc. by group, without "none"."""
    names = {group: config[group].get("name", "unnamed") for group in _CONDITIONS}
    return {group: name for group, name in names.items() if name != "none"}


def _protocol(config: Mapping[str, Any]) -> str:
    """Label of the evaluation protocol; only runs with the same label are comparable."""
    split = config["split"]
    parts = [split.get("name", "unnamed"), split["negatives"]]
    if split.get("num_validation") == 0:
        parts.append("trained on validation")
    if config["evaluation"].get("test_history", "train") != "train":
        parts.append("test reads validation")
    return ", ".join(parts)

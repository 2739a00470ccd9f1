"""The summary of a run, kept true while it lasts."""

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


class Record:
    """Keeps summary.json true while a run lasts: running, then completed, failed, interrupted.

    Args:
        folder: the run's folder.
        config: the resolved configuration.
        saved: the checkpoint that the run goes on from; None if it begins.
    """

    def __init__(
        self, folder: RunFolder, config: Mapping[str, Any], saved: Checkpoint | None
    ) -> None:
        self.folder, self._memory = folder, PeakMemory()
        self._earlier: Mapping[str, Any] = {} if saved is None else saved.facts["record"]
        self._began = self._trains = perf_counter()
        described = folder.write_environment()
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
            "epsilon": None,  # nothing is guaranteed: infinity
            "resumed_after": list(self._earlier.get("resumed_after", [])),  # rounds
            "versions": described["versions"],
            "commit": described["commit"],
        }

    def __enter__(self) -> Self:
        """Write the first summary and begin to watch memory."""
        self._memory.__enter__()
        self.folder.write_summary(self.summary)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the last summary, whatever happened."""
        self._memory.__exit__(kind, error, trace)
        if error is not None:
            interrupted = isinstance(error, KeyboardInterrupt)
            self.summary["status"] = "interrupted" if interrupted else "failed"
            self.summary["error"] = str(error) or type(error).__name__
        self.summary |= self._peak()
        self.folder.write_summary(self.summary)

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the summary.

        Raises:
            DataError: if the data are not those that the run began with.
        """
        self.summary |= facts
        split, before = (known.get("split_sha256") for known in (self.summary, self._earlier))
        if before not in (None, split):
            raise DataError(
                f"{self.folder.path} was begun with other data (split {before}, now {split}): "
                "bring those back, or start a new run"
            )

    def start_training(self, after: int) -> None:
        """Set-up ends here: data prepared, engine started, untrained model evaluated.

        Args:
            after: the round that is the last one so far; above 0 if a run goes on.
        """
        self._trains = perf_counter()
        if after:
            self.summary["resumed_after"].append(after)

    def seconds(self, spent: Mapping[str, float]) -> dict[str, float]:
        """Wall seconds, those before an interruption added: setup, train, evaluate, total."""
        setup, total = (until - self._began for until in (self._trains, perf_counter()))
        setup, total = setup + self._earlier.get("setup", 0), total + self._earlier.get("total", 0)
        return {"setup": setup, **spent, "total": total}

    def facts(self) -> dict[str, Any]:
        """What a process that goes on from here has to know, JSON-able."""
        told = {name: self.summary[name] for name in ("resumed_after", "split_sha256")}
        return {**self.seconds({}), **self._peak(), **told}

    def _peak(self) -> dict[str, Any]:
        now = {
            "peak_memory_mb": round(self._memory.megabytes, 1),
            "peak_resident_mb": round(self._memory.resident_megabytes, 1),
        }
        highest = {name: max(value, self._earlier.get(name, 0)) for name, value in now.items()}
        return {**highest, "peak_memory_measure": self._memory.measure}


def _conditions(config: Mapping[str, Any]) -> dict[str, str]:
    """What a run was put under beyond training, by group; nothing that is none."""
    names = {group: config[group].get("name", "unnamed") for group in _CONDITIONS}
    return {group: name for group, name in names.items() if name != "none"}


def _protocol(config: Mapping[str, Any]) -> str:
    """What sets rows of a table apart: they are rivals only where all of it agrees."""
    split = config["split"]
    told = [split.get("name", "unnamed"), split["negatives"]]
    if split.get("num_validation") == 0:
        told.append("trained on validation")
    if config["evaluation"].get("test_history", "train") != "train":
        told.append("test reads validation")
    return ", ".join(told)

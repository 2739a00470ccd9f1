"""The summary of a run, kept true while it lasts."""

from collections.abc import Mapping
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from fedrec_flower.results import RunFolder
from fedrec_flower.results.peak_memory import PeakMemory

_NAMED = ("dataset", "model", "strategy", "partition", "federation")


class Record:
    """Keeps summary.json true while a run lasts: running, then completed, failed, interrupted.

    Args:
        folder: the run's folder.
        config: the resolved configuration.
    """

    def __init__(self, folder: RunFolder, config: Mapping[str, Any]) -> None:
        self.folder, self._memory = folder, PeakMemory()
        self._began = self._trains = perf_counter()
        described = folder.write_environment()
        names = {group: config[group].get("name", "unnamed") for group in _NAMED}
        split = config["split"]
        self.summary: dict[str, Any] = {
            "status": "running",
            **names,
            "protocol": f"{split.get('name', 'unnamed')}, {split['negatives']}",
            "task": config["task"],
            "seed": config["seed"],
            "num_rounds": config["num_rounds"],
            "clients_per_round": config["clients_per_round"],
            "overrides": config.get("overrides", []),
            "epsilon": None,  # nothing is guaranteed: infinity
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
        self.summary |= {
            "peak_memory_mb": round(self._memory.megabytes, 1),
            "peak_memory_measure": self._memory.measure,
            "peak_resident_mb": round(self._memory.resident_megabytes, 1),
        }
        self.folder.write_summary(self.summary)

    def learn(self, facts: Mapping[str, Any]) -> None:
        """Add facts to the summary."""
        self.summary |= facts

    def start_training(self) -> None:
        """Set-up ends here: data prepared, engine started, untrained model evaluated."""
        self._trains = perf_counter()

    def seconds(self, spent: Mapping[str, float]) -> dict[str, float]:
        """Wall seconds: setup, train, evaluate, total."""
        total = perf_counter() - self._began
        return {"setup": self._trains - self._began, **spent, "total": total}

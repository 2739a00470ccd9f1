"""Peak memory of a run, worker processes included."""

import threading
from types import TracebackType
from typing import Self

import psutil


class PeakMemory:
    """Looks at the resident memory of this process and its children while the context lasts.

    Pages that processes share count once for each, so the figure never flatters.

    Args:
        interval: seconds between looks.
    """

    def __init__(self, interval: float = 0.5) -> None:
        self._interval, self._peak = interval, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        """The highest sum seen so far, in megabytes (10**6 bytes)."""
        self._look()
        return self._peak / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()

    def _look(self) -> None:
        this = psutil.Process()
        total = 0
        for process in [this, *this.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it ended between being listed and being asked
                continue
        self._peak = max(self._peak, total)

"""SIGTERM and SIGHUP end a run as Ctrl-C does: what it had is kept, its folder says so."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which terminals, schedulers and init systems end a job."""

_received: list[int] = []

Handler = Callable[[int, FrameType | None], None]


def exit_code() -> int:
    """128 and the number of the signal that ended the run, as shells count: 130 for Ctrl-C."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Let a function handle the signals that end a job, for as long as the context lasts.

    A signal that is ignored stays ignored: `nohup` ignores SIGHUP. Outside of the main thread,
    which alone receives signals, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def noted(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        handler(number, frame)

    heard = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, noted) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            # None: it was not Python that had set it, so it cannot be set again from here.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


@contextmanager
def interrupting() -> Iterator[None]:
    """Let each of these signals raise KeyboardInterrupt, wherever the main thread is."""
    _received.clear()
    with handled_by(_interrupt):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt

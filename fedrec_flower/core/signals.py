"""Handles SIGTERM and SIGHUP like Ctrl-C: results are kept and the summary is updated."""

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
    """128 plus the number of the signal that ended the run, as in shells: 130 for Ctrl-C."""
    return 128 + (_received[-1] if _received else signal.SIGINT)


@contextmanager
def handle_signals(handler: Handler) -> Iterator[None]:
    """Let a function handle the signals that end a job while the context lasts.

    An ignored signal stays ignored: `nohup` ignores SIGHUP. Only the main thread receives signals;
    in any other thread this context changes no handler.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def record_and_handle(number: int, frame: FrameType | None) -> None:
        _received.append(number)
        handler(number, frame)

    handled = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
    previous = {number: signal.signal(number, record_and_handle) for number in handled}
    try:
        yield
    finally:
        for number, earlier in previous.items():
            # None: the handler was not set from Python, so it cannot be restored from here.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


@contextmanager
def interrupt_on_signal() -> Iterator[None]:
    """Let each of these signals raise KeyboardInterrupt in the main thread."""
    _received.clear()
    with handle_signals(_interrupt):
        yield


def _interrupt(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt

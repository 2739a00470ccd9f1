"""Wakes Flower's simulation engine when a message is pushed.

Without it, the engine polls for messages ten times a second, and a round waits for each poll.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.server.superlink.fleet.vce import vce_api


@contextmanager
def wake_on_message(new_messages: threading.Event) -> Iterator[None]:
    """Let the engine look for messages when `new_messages` is set, in addition to its polling.

    This replaces an internal function of Flower, the one that polls and waits; a test checks it
    against the pinned version.

    Args:
        new_messages: set by the server when it has pushed messages; cleared here.
    """
    original: Callable[..., None] = vce_api.add_messages_to_queue

    def add_messages_to_queue(*arguments: Any, **named: Any) -> None:
        *first_arguments, stop = arguments
        original(*first_arguments, _EventProxy(stop, new_messages), **named)

    vce_api.add_messages_to_queue = add_messages_to_queue
    try:
        yield
    finally:
        vce_api.add_messages_to_queue = original


class _EventProxy:
    """Stands in for the engine's stop event; a new message ends its wait between two polls.

    Args:
        stop: the engine's event, set when the engine must end.
        new_messages: set when there are messages.
    """

    def __init__(self, stop: threading.Event, new_messages: threading.Event) -> None:
        self._stop = stop
        self._new_messages = new_messages

    def is_set(self) -> bool:
        """Return whether the engine must end."""
        return self._stop.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for a message, at most `timeout` seconds; return whether the engine must end."""
        self._new_messages.wait(timeout)
        # Cleared before the poll: a message that is pushed later sets the event again.
        self._new_messages.clear()
        return self._stop.is_set()

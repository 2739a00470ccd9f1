"""Flower's simulation looks for messages ten times a second; here it is told of them."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flwr.server.superlink.fleet.vce import vce_api


@contextmanager
def attentive(mail: threading.Event) -> Iterator[None]:
    """Let the engine look for messages whenever `mail` is set, as well as ten times a second.

    This touches an internal of Flower, the function in which it looks and waits; a test holds it
    against the pinned version.
    """
    patient: Callable[..., None] = vce_api.add_messages_to_queue

    def look(*arguments: Any, **named: Any) -> None:
        *others, stop = arguments
        patient(*others, _Bell(stop, mail), **named)

    vce_api.add_messages_to_queue = look
    try:
        yield
    finally:
        vce_api.add_messages_to_queue = patient


class _Bell:
    """The engine's own event, but mail ends the wait between two looks.

    Args:
        stop: the engine's event, set when it is to end.
        mail: set when there are messages.
    """

    def __init__(self, stop: threading.Event, mail: threading.Event) -> None:
        self._stop, self._mail = stop, mail

    def is_set(self) -> bool:
        """Whether the engine is to end."""
        return self._stop.is_set()

    def wait(self, timeout: float) -> bool:
        """Wait for mail, or for the time to pass."""
        self._mail.wait(timeout)
        self._mail.clear()  # whatever is pushed from here on is seen by the look that follows
        return self._stop.is_set()

"""Tests of waking Flower's simulation engine when a message is pushed."""

import threading
import time
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.server.superlink.fleet.vce import vce_api

from fedrec_flower.federation.transport.simulation_wakeup import wake_on_message


class MessageSource:
    """The part of Flower's state that its engine polls for messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.num_polls = 0

    def get_message_ins(self, node_id: int, limit: int) -> list[str]:
        """Return the messages of a node, each once."""
        del node_id
        self.num_polls += 1
        returned, self.messages = self.messages[:limit], self.messages[limit:]
        return returned


@pytest.fixture
def engine() -> Any:
    """Flower's own polling thread for one node, with the wake-up installed."""
    source, queue = MessageSource(), Queue[str]()
    new_messages, stop = threading.Event(), threading.Event()
    with wake_on_message(new_messages):
        arguments = (source, queue, {1: 0}, stop)
        thread = threading.Thread(target=vce_api.add_messages_to_queue, args=arguments)
        thread.start()
    yield SimpleNamespace(source=source, queue=queue, new_messages=new_messages)
    stop.set()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_wake_on_message_delivers_an_announced_message_at_once(engine: Any) -> None:
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        engine.source.messages.append("hello")
        engine.new_messages.set()
        assert engine.queue.get(timeout=5) == "hello"
        seconds.append(time.perf_counter() - start)
    assert sorted(seconds)[10] < 0.05  # polling alone would take 0.05 on average


def test_wake_on_message_delivers_a_message_that_is_not_announced(engine: Any) -> None:
    engine.source.messages.append("hello")
    assert engine.queue.get(timeout=5) == "hello"


def test_wake_on_message_polls_at_most_as_often_as_flower_without_messages(engine: Any) -> None:
    before = engine.source.num_polls
    time.sleep(0.5)
    assert engine.source.num_polls - before <= 0.5 / 0.1 + 1


def test_wake_on_message_restores_the_function_of_flower() -> None:
    original = vce_api.add_messages_to_queue
    with wake_on_message(threading.Event()):
        assert vce_api.add_messages_to_queue is not original
    assert vce_api.add_messages_to_queue is original

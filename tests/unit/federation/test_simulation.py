"""Flower's simulation is told of messages, and looks for them as before when nobody tells."""

import threading
import time
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.server.superlink.fleet.vce import vce_api

from fedrec_flower.federation.transport.simulation import attentive


class Postbox:
    """What Flower's engine asks for messages, as far as it does."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.looks = 0

    def get_message_ins(self, node_id: int, limit: int) -> list[str]:
        """The messages of a node, each given once."""
        del node_id
        self.looks += 1
        given, self.messages = self.messages[:limit], self.messages[limit:]
        return given


@pytest.fixture
def engine() -> Any:
    """Flower's own thread at work on a postbox, for one node, told of mail."""
    box, queue, mail, stop = Postbox(), Queue[str](), threading.Event(), threading.Event()
    with attentive(mail):
        arguments = (box, queue, {1: 0}, stop)
        thread = threading.Thread(target=vce_api.add_messages_to_queue, args=arguments)
        thread.start()
    yield SimpleNamespace(box=box, queue=queue, mail=mail)
    stop.set()
    thread.join(timeout=5)
    assert not thread.is_alive()  # told to end, it ends


def test_a_message_is_seen_when_its_mail_is_announced(engine: Any) -> None:
    waited = []
    for _ in range(20):
        begun = time.perf_counter()
        engine.box.messages.append("hello")
        engine.mail.set()
        assert engine.queue.get(timeout=5) == "hello"
        waited.append(time.perf_counter() - begun)
    assert sorted(waited)[10] < 0.05  # seconds; half a look's interval would be the mean


def test_without_an_announcement_it_is_seen_all_the_same(engine: Any) -> None:
    engine.box.messages.append("hello")
    assert engine.queue.get(timeout=5) == "hello"


def test_nobody_looks_more_often_than_flower_does_while_there_is_no_mail(engine: Any) -> None:
    before = engine.box.looks
    time.sleep(0.5)
    assert engine.box.looks - before <= 0.5 / 0.1 + 1


def test_flower_is_left_as_it_was() -> None:
    patient = vce_api.add_messages_to_queue
    with attentive(threading.Event()):
        assert vce_api.add_messages_to_queue is not patient
    assert vce_api.add_messages_to_queue is patient

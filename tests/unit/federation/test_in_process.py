"""The in-process grid behaves like Flower's grids; Flower's internals are as expected."""

import logging
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.federation.transport.flower_log import flower_logs_to
from fedrec_flower.federation.transport.in_process import InProcess, InProcessGrid

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with the node's configuration and its number of requests."""
    seen = context.state.config_records.setdefault("seen", ConfigRecord({"times": 0}))
    seen["times"] = int(seen["times"]) + 1  # type: ignore[arg-type]  # it holds an integer
    place = context.node_config
    answer = {
        "node": context.node_id,
        "partition": place["partition-id"],
        "of": place["num-partitions"],
        "times": seen["times"],
    }
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Send every array back, doubled."""
    del context
    arrays = message.content.array_records["arrays"]
    doubled = ArrayRecord({name: Array(array.numpy() * 2) for name, array in arrays.items()})
    return Message(RecordDict({"arrays": doubled}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    del message, context
    raise TrainingError("client 3, round 2: the loss is nan")


@pytest.fixture
def grid() -> InProcessGrid:
    return InProcessGrid(app, num_nodes=3)


def ask(grid: Grid, *nodes: int, kind: str = "query") -> list[Message]:
    content = RecordDict({"arrays": ArrayRecord({"x": Array(np.array([1.5, 2.0]))})})
    return [grid.create_message(content, kind, node, "1") for node in nodes]


def answers(replies: list[Message], key: str) -> list[object]:
    return [reply.content.config_records["answer"][key] for reply in replies]


def test_in_process_grid_delivers_messages_to_their_nodes(grid: InProcessGrid) -> None:
    assert list(grid.get_node_ids()) == [1, 2, 3]
    replies = list(grid.send_and_receive(ask(grid, 1, 2, 3)))
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 3]
    assert answers(replies, "node") == [1, 2, 3]
    assert answers(replies, "partition") == [0, 1, 2]
    assert answers(replies, "of") == [3, 3, 3]


def test_in_process_grid_keeps_one_state_per_node(grid: InProcessGrid) -> None:
    grid.send_and_receive(ask(grid, 1, 1, 2))
    assert answers(list(grid.send_and_receive(ask(grid, 1, 2, 3))), "times") == [3, 2, 1]


def test_in_process_grid_returns_each_reply_once(grid: InProcessGrid) -> None:
    pushed = list(grid.push_messages(ask(grid, 2, 1)))
    assert len(set(pushed)) == 2
    replies = list(grid.pull_messages(pushed[1:]))
    assert [reply.metadata.reply_to_message_id for reply in replies] == pushed[1:]
    assert list(grid.pull_messages(pushed[1:])) == []
    assert len(list(grid.pull_messages(pushed))) == 1


def test_in_process_grid_does_not_change_arrays(grid: InProcessGrid) -> None:
    [reply] = grid.send_and_receive(ask(grid, 2, kind="train"))
    assert reply.content.array_records["arrays"]["x"].numpy().tolist() == [3.0, 4.0]


def test_in_process_grid_raises_the_error_of_a_node(grid: InProcessGrid) -> None:
    with pytest.raises(TrainingError, match="client 3, round 2: the loss is nan"):
        grid.send_and_receive(ask(grid, 1, kind="evaluate"))


def test_in_process_grid_creates_valid_flower_messages(grid: InProcessGrid) -> None:
    """Holds `TaskIdentity`, the one internal of Flower that the project touches."""
    [message] = ask(grid, 2)
    assert message.metadata.dst_node_id == 2
    assert message.metadata.run_id == grid.run.run_id
    reply = Message(RecordDict(), reply_to=message)
    assert reply.metadata.dst_node_id == message.metadata.src_node_id


def test_in_process_run_redirects_the_log_of_flower(tmp_path: Path) -> None:
    grids: list[Grid] = []

    def serve(grid: Grid) -> None:
        grids.append(grid)
        logging.getLogger("flwr").info("a word of Flower's")

    InProcess(num_nodes=2).run(serve, tmp_path / "flower.log")
    assert len(list(grids[0].get_node_ids())) == 2
    assert "a word of Flower's" in (tmp_path / "flower.log").read_text()


def test_flower_logs_to_restores_the_logger_after_an_error(tmp_path: Path) -> None:
    logger = logging.getLogger("flwr")
    before = (logger.handlers[:], logger.propagate)
    with pytest.raises(TrainingError), flower_logs_to(tmp_path / "flower.log"):
        raise TrainingError("round 1: no node answered")
    assert (logger.handlers[:], logger.propagate) == before

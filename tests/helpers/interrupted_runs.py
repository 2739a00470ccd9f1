"""Runs that are interrupted and gone on with, and what they should have left."""

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import Message

from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.resume import resume
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from tests.helpers.federations import Tap

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

SAME = ("rounds.csv", "per_user.csv", "recommendations.csv", "clients.csv", "model.safetensors")
MODELS = {
    "mf": ("model=mf", "strategy=fedadam"),
    "ncf": ("model=ncf",),
    "pfedrec": ("model=pfedrec", "model.score_with=own"),
    "ials": ("model=ials", "strategy=sums"),
}
ROUNDS = ("num_rounds=9", "checkpoint_every=2", "evaluation.every=3")


def require_same(whole: Path, rest: Path) -> None:
    """The tables, the model, personal parameters and whatever the summary says but times."""
    for name in SAME:
        assert (rest / name).read_bytes() == (whole / name).read_bytes(), name
    personal = {path.name for path in (whole / "clients").iterdir()}
    assert {path.name for path in (rest / "clients").iterdir()} == personal
    for name in personal - {"change.npy"}:  # marks of changes are random
        assert (rest / "clients" / name).read_bytes() == (whole / "clients" / name).read_bytes()
    assert said(rest) == said(whole)
    assert {path.name for path in (rest / "figures").iterdir()} == {
        path.name for path in (whole / "figures").iterdir()
    }
    assert not (rest / "checkpoints").exists()


def said(folder: Path) -> dict[str, Any]:
    """What a summary says but of times and memory."""
    summary = json.loads((folder / "summary.json").read_text())
    own = ("seconds", "clients_per_second", "resumed_after", "overrides")
    return {k: v for k, v in summary.items() if k not in own and not k.startswith("peak_")}


def last_checkpoint(folder: Path) -> int:
    """The round of the last checkpoint, 0 if there is none."""
    files = (folder / "checkpoints").glob("round-*.checkpoint")
    return max((int(file.stem.removeprefix("round-")) for file in files), default=0)


class Interrupted:
    """Ctrl-C at a message: lets so many pass."""

    def __init__(self, messages: int) -> None:
        self.left = messages

    def __call__(self, asked: list[Message], replies: list[Message]) -> list[Message]:
        self.left -= len(asked)
        if self.left < 0:
            raise KeyboardInterrupt
        return replies


def interrupted(words: list[str], folder: Path, messages: int) -> None:
    """Begin a run, and interrupt it."""
    config, _ = compose(words)
    with pytest.raises(KeyboardInterrupt):
        run(config, RunFolder.create(folder, "seed: 1\n"), Tap(1, Interrupted(messages)))
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"


def go_on(words: list[str], folder: Path, messages: int | None = None) -> Tap:
    """Go on with a run, and perhaps interrupt it again."""
    config, _ = compose(words)
    taken = resume(folder, "seed: 1\n")
    assert taken is not None
    tap = Tap(1, lambda _, replies: replies) if messages is None else Tap(1, Interrupted(messages))
    run(config, taken, tap)
    return tap


def kinds(tap: Tap) -> list[str]:
    return [message.metadata.message_type for message in tap.asked]


@cache
def uninterrupted(make_run: "MakeRun", words: tuple[str, ...]) -> Path:
    """The folder of the run that is not interrupted."""
    return make_run(base=words).folder

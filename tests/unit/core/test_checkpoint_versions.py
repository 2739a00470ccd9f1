"""A checkpoint of another version of the code is skipped like a damaged one."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from fedrec_flower.experiment.run_folder import RunFolder
from tests.unit.core.test_checkpoint import checkpoint

DIGEST = 32  # bytes


def _renamed(facts: dict[str, Any]) -> None:
    facts["spared_then"] = facts.pop("spared")


def _lacking(facts: dict[str, Any]) -> None:
    del facts["order"]


def _of_another_kind(facts: dict[str, Any]) -> None:
    facts["files"] = list(facts["files"])


@pytest.mark.parametrize("change", [_renamed, _lacking, _of_another_kind])
def test_newest_skips_a_checkpoint_of_another_version(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], caplog: pytest.LogCaptureFixture
) -> None:
    run = RunFolder.create(tmp_path / "run")
    for round_ in (3, 4):
        run.add_round(round_, "train", {"loss": 1.0}, 4)
        run.checkpoints.write(checkpoint(round_))
    file = run.path / "checkpoints" / "round-4.checkpoint"
    arrays = load(file.read_bytes()[DIGEST:])
    facts = json.loads(arrays["json"].tobytes())
    change(facts)
    content = save(arrays | {"json": np.frombuffer(json.dumps(facts).encode(), np.uint8)})
    file.write_bytes(sha256(content).digest() + content)
    found = run.checkpoints.newest()
    assert found is not None
    assert found.round == 3
    (warning,) = caplog.messages
    complaint = "is of another version of the code, so the previous checkpoint is used: "
    assert warning.startswith(f"{file} {complaint}")

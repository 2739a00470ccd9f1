"""Presets show the settings that they make in other groups, at the start and in --help."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.conftest import Command


def test_run_with_a_preset_first_lists_its_settings_in_other_groups(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ended = command(*smoke, "model=popularity", f"output_dir={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    # The experiment sets num_rounds and evaluation.every after the model.
    assert ended.err.splitlines()[0] == "model=popularity also sets strategy=sums"


def test_settings_that_the_command_line_overrides_are_not_listed(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("model=lightgcn", "training.learning_rate=3", "num_rounds=0")
    ended = command(*smoke, *words, f"output_dir={tmp_path / 'run'}")
    assert "also sets" not in ended.err


def test_help_lists_every_preset(command: "Command") -> None:
    lines = command("--help").out.splitlines()
    assert "model=ease: strategy=sums, num_rounds=1, evaluation.every=1" in lines
    assert any(line.startswith("federation=centralized: partition=single") for line in lines)
    assert not any(line.startswith("strategy=fedavg:") for line in lines)

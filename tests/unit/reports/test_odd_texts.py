"""Texts from outside, on terminals without UTF-8 and in figures."""

import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from rich.console import Console

from fedrec_flower.cli.main import _log_to_stderr, _print_error
from fedrec_flower.reports import figures as plots
from fedrec_flower.reports.build import main as compare
from fedrec_flower.reports.figures.style import _places, canvas
from fedrec_flower.reports.markdown import final_table
from tests.helpers.run_folders import summary, write_run

ODD = ["$0-$25k", "$25k-$50k", "$a^$", "a_$x$", "100 %", r"\$"]


EVERY_ENCODING = pytest.mark.parametrize("encoding", ["ascii", "cp1252"])


def terminal(encoding: str, monkeypatch: pytest.MonkeyPatch) -> list[BytesIO]:
    """Put terminals of an encoding in the place of stdout and stderr; what they are sent."""
    written = [BytesIO(), BytesIO()]
    for name, raw in zip(("stdout", "stderr"), written, strict=True):
        monkeypatch.setattr(sys, name, TextIOWrapper(raw, encoding=encoding, write_through=True))
    return written


@EVERY_ENCODING
def test_a_terminal_without_utf_8_ends_no_run(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F7: output that is not UTF-8 ends no run."""
    out, err = terminal(encoding, monkeypatch)
    _log_to_stderr()
    Console().print(final_table(summary(dataset="données ∞", model="推荐")))
    print("results/推荐")  # noqa: T201  # as the command line does
    _print_error("推荐 ± ∞ is unknown", 1)
    assert b"0.2500 " in out.getvalue()
    assert out.getvalue().splitlines()[-1] == b"results/??"
    assert err.getvalue().endswith(b"? is unknown\n")


@EVERY_ENCODING
def test_a_terminal_without_utf_8_ends_no_comparison(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F7: output that is not UTF-8 ends no run."""
    write_run(tmp_path / "runs" / "推荐", label="推荐")
    arguments = ["compare", str(tmp_path / "runs"), "--to", str(tmp_path / "table")]
    out, _ = terminal(encoding, monkeypatch)
    monkeypatch.setattr(sys, "argv", arguments)
    compare()
    assert b"epsilon" in out.getvalue()
    assert "∞" in (tmp_path / "table" / "comparison.md").read_text(encoding="utf-8")


def test_dollars_in_a_figure_are_dollars(tmp_path: Path) -> None:
    """F15: texts from outside are drawn in figures as they are."""
    figure, axes = canvas(ODD[0], ODD[1], x=ODD[2], y=ODD[3])
    for place, name in enumerate(ODD):
        axes.plot([place], [place], label=name)
        axes.annotate(name, (place, place))
    axes.legend()
    axes.set_yticks(range(len(ODD)), ODD)
    axes.set_xscale("log")
    plots.save(figure, tmp_path, "odd")
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    told = {text.get_text() for text in texts if not text.get_parse_math()}
    assert {name.strip() for name in ODD} <= {text.strip() for text in told}
    powers = [text for text in axes.get_xticklabels() if "10^" in text.get_text()]
    assert powers
    assert all(text.get_parse_math() for text in powers)


def test_clients_with_dollars_in_their_names_are_drawn(tmp_path: Path) -> None:
    """F15: texts from outside are drawn in figures as they are."""
    clients = pd.DataFrame({"client": range(len(ODD)), "name": ODD, "top_genre": ODD})
    counts = {"num_users": 3, "num_train": 9, "num_validation": 1, "num_test": 1, "num_items": 5}
    clients = clients.assign(**counts, rounds_participated=2)
    plots.save(plots.data_partition(clients), tmp_path, "partition")
    plots.save(plots.participation(clients), tmp_path, "participation")


def test_names_with_dollars_are_placed_by_what_is_drawn() -> None:
    """F15: texts from outside are drawn in figures as they are."""
    for name in ODD:
        first = next(iter(_places(np.zeros(2), name)))
        assert first.width > 0

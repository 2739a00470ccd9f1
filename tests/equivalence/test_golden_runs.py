"""Tiny seeded runs give the numbers that are committed; see `tests.helpers.golden_runs`."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.golden_runs import CASES, GOLDEN, TOLERANCE, digest_of, machine

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

_WRITTEN: dict[str, Any] = json.loads(GOLDEN.read_text())
_TO_THE_BYTE = _WRITTEN["machine"] == machine()
_QUICK = ("model=",)


def _cases() -> list[Any]:
    return [
        pytest.param(name, marks=() if name.startswith(_QUICK) else pytest.mark.slow)
        for name in CASES
    ]


@pytest.mark.parametrize("name", _cases())
def test_a_golden_run_gives_the_committed_numbers(name: str, federate: "Federate") -> None:
    """To the byte on the machine that wrote them, to the tolerance elsewhere."""
    found, wanted = digest_of(federate(*CASES[name])), _WRITTEN["runs"][name]
    if _TO_THE_BYTE:
        # Not the sums over parameters: BLAS adds in an order that depends on memory alignment.
        for part in ("parameters_sha256", "replies_sha256", "losses", "metrics"):
            assert found[part] == wanted[part], part
        return
    assert found["parameters"].keys() == wanted["parameters"].keys()
    for tensor, sums in wanted["parameters"].items():
        assert found["parameters"][tensor] == pytest.approx(sums, rel=TOLERANCE, abs=TOLERANCE)
    known = [place for place, loss in enumerate(wanted["losses"]) if loss is not None]
    losses = [found["losses"][place] for place in known]
    assert losses == pytest.approx([wanted["losses"][place] for place in known], rel=TOLERANCE)
    # A metric over 24 users moves in steps: rounding may move one user by one rank.
    assert found["metrics"].keys() == wanted["metrics"].keys()


def test_every_golden_run_is_committed_and_none_is_left_over() -> None:
    assert _WRITTEN["runs"].keys() == CASES.keys()

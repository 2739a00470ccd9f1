"""Compiled functions also run where their machine code cannot be cached."""

import logging
from typing import Any

import numba
import pytest

from fedrec_flower.core import compiling
from fedrec_flower.core.compiling import compiled


def _without_a_file() -> Any:
    """A function whose source is in no file, so that numba finds no folder for its cache."""
    scope: dict[str, Any] = {}
    exec(compile("def twice(x):\n    return 2 * x\n", "<nowhere>", "exec"), scope)  # noqa: S102  # a literal
    return scope["twice"]


def test_compiled_without_a_cache_folder_warns_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """F6: numba alone refuses, as in a container whose user has no home."""
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(_without_a_file())
    compiling._warn_once.cache_clear()
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        assert compiled(_without_a_file())(21) == 42
        assert compiled(_without_a_file(), fastmath=True)(4) == 8
    assert caplog.text.count("NUMBA_CACHE_DIR") == 1


def test_other_errors_of_the_compiler_are_raised() -> None:
    """F6: compiled code needs no home folder."""
    with pytest.raises((RuntimeError, TypeError, KeyError)):
        compiled(_without_a_file(), no_such_option=True)(1)

"""Compiled functions, whose machine code is kept on disk where a folder for it can be written."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_LOG = logging.getLogger(__name__)


def compiled(function: Function, **options: Any) -> Function:
    """Compile a function at its first call, and keep the machine code for later processes.

    numba keeps it beside the source, in the user's cache folder, or in NUMBA_CACHE_DIR. Where it
    may write to none of them, as in a container without a home, each process compiles anew.

    Args:
        function: takes and returns what numba can type.
        options: of `numba.njit`.
    """
    import numba  # here: not every command computes

    compile_it = numba.njit(error_model="numpy", **options)
    try:
        kept = numba.njit(cache=True, error_model="numpy", **options)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        _say_once()
        return cast("Function", compile_it(function))
    return cast("Function", kept)


@cache
def _say_once() -> None:
    _LOG.warning(
        "compiled code cannot be kept (no folder for it can be written): every start compiles "
        "anew; set NUMBA_CACHE_DIR to a folder to keep it"
    )

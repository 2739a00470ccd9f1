"""Compiles functions with numba and caches the machine code on disk where possible."""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

_LOG = logging.getLogger(__name__)


def compiled(function: Function, **options: Any) -> Function:
    """Compile a function at its first call and cache the machine code for later processes.

    numba stores the code next to the source, in the user's cache folder, or in NUMBA_CACHE_DIR. If
    none of them is writable, as in a container without a home folder, each process compiles again.

    Args:
        function: takes and returns values that numba can type.
        options: keyword arguments of `numba.njit`.
    """
    import numba  # imported here: not every command computes

    try:
        cached = numba.njit(cache=True, error_model="numpy", **options)(function)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        _warn_once()
        return cast("Function", numba.njit(error_model="numpy", **options)(function))
    return cast("Function", cached)


@cache
def _warn_once() -> None:
    _LOG.warning(
        "compiled code cannot be cached because no cache folder is writable, so every process "
        "compiles again: set NUMBA_CACHE_DIR to a writable folder"
    )

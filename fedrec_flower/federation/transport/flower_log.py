"""Redirects Flower's log to a file, so that it does not break the progress bar."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def flower_logs_to(path: Path, *, keep_handlers: bool = False) -> Iterator[None]:
    """Write Flower's log to a file while the context is open.

    Args:
        path: the file.
        keep_handlers: write to the previous handlers as well.
    """
    logger = logging.getLogger("flwr")
    handlers, propagate = logger.handlers[:], logger.propagate
    file = logging.FileHandler(path, delay=False)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if keep_handlers:
        logger.handlers = [*handlers, file]
    else:
        logger.handlers, logger.propagate = [file], False
    try:
        yield
    finally:
        file.close()
        logger.handlers, logger.propagate = handlers, propagate

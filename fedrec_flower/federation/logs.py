"""Flower talks a lot; what it says belongs in a file, beside the progress bar it would tear."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def flower_logs_to(path: Path, *, beside: bool = False) -> Iterator[None]:
    """Send the log of Flower to a file for as long as the context lasts.

    Args:
        path: the file.
        beside: whether the log also goes where it went before.
    """
    logger = logging.getLogger("flwr")
    handlers, propagate = logger.handlers[:], logger.propagate
    file = logging.FileHandler(path, delay=False)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    if beside:
        logger.handlers = [*handlers, file]
    else:
        logger.handlers, logger.propagate = [file], False
    try:
        yield
    finally:
        file.close()
        logger.handlers, logger.propagate = handlers, propagate

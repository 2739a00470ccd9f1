"""Flower talks a lot; what it says belongs in a file, beside the progress bar it would tear."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def flower_logs_to(path: Path) -> Iterator[None]:
    """Send the log of Flower to a file for as long as the context lasts."""
    logger = logging.getLogger("flwr")
    handlers, propagate = logger.handlers[:], logger.propagate
    file = logging.FileHandler(path, delay=False)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.handlers, logger.propagate = [file], False
    try:
        yield
    finally:
        file.close()
        logger.handlers, logger.propagate = handlers, propagate

"""What every table shares: the work a client does, and a process of its own per measurement."""

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

# A client takes all its interactions plus four negatives each, one epoch, batches of 128, SGD.
WORK = (
    "training.local_epochs=1", "training.batch_size=128", "training.learning_rate=0.5",
    "training.dense_learning_rate=0.5", "training.weight_decay=0", "training.num_negatives=4",
    "model.embedding_dim=16", "model.init_std=0.1", "evaluation.num_negatives=0",
)  # fmt: skip

_LOG = logging.getLogger(__name__)
_CALL = """
import json, sys
from {module} import {name}
print(json.dumps({name}(*json.loads(sys.argv[1]))))
"""


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a fresh process of one thread.

    Args:
        function: importable by its module and name.
        arguments: JSON-able.

    Returns:
        What the function returns, by way of JSON.

    Raises:
        subprocess.CalledProcessError: if the process fails; its own words are on stderr.
    """
    _LOG.info("measuring %s %s", function.__name__, " ".join(map(str, arguments)))
    code = _CALL.format(module=function.__module__, name=function.__qualname__)
    done = subprocess.run(  # noqa: S603  # our own interpreter, our own words
        [sys.executable, "-c", code, json.dumps(arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a piece of work; CPU of all threads of this process."""
    wall, cpu = perf_counter(), process_time()
    work()
    return perf_counter() - wall, process_time() - cpu


def peak_memory_mb() -> float:
    """The most resident memory this process ever had, in megabytes (10**6 bytes).

    Pages of memory-mapped files count while they are resident.
    """
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands a parent's `ru_maxrss` on to its children: ask for this program's own.
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024 / 1e6
    import resource

    # In bytes on macOS, which alone comes here of the systems that have `resource`.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

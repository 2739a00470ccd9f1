"""Helpers of all benchmark tables: the work per client, separate processes, time and memory."""

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

# A client trains on all its interactions plus four negatives each: one epoch, batches of 128, SGD.
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
    """Call a function in a new process with one thread.

    Args:
        function: importable by module and name.
        arguments: JSON-able.

    Returns:
        The result of the function, converted to JSON and back.

    Raises:
        subprocess.CalledProcessError: if the process fails; its message is on stderr.
    """
    _LOG.info("measuring %s %s", function.__name__, " ".join(map(str, arguments)))
    code = _CALL.format(module=function.__module__, name=function.__qualname__)
    done = subprocess.run(  # noqa: S603  # this interpreter and fixed arguments
        [sys.executable, "-c", code, json.dumps(arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of a call; CPU of all threads of this process."""
    wall_start = perf_counter()
    cpu_start = process_time()
    work()
    return perf_counter() - wall_start, process_time() - cpu_start


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in megabytes (10**6 bytes).

    Pages of memory-mapped files count while they are resident.
    """
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux a child inherits `ru_maxrss` from its parent; VmHWM is of this process only.
        match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if match:
            return int(match[1]) * 1024 / 1e6
    import resource

    # In bytes on macOS, the only system with `resource` but without /proc.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

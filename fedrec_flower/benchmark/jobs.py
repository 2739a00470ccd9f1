"""Table of whole commands: time from the command to the prompt, and memory of all processes."""

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import psutil

from fedrec_flower.benchmark.costs import opening
from fedrec_flower.benchmark.measuring import in_new_process

_POPULATION = (
    "dataset=synthetic dataset.num_users=1000000 dataset.num_items=10000 "
    "dataset.num_interactions=10000000 model=mf model.embedding_dim=16 federation=in_process "
    "clients_per_round=10000 num_rounds=5 evaluation.every=5 evaluation.num_clients=1000"
)
JOBS = {
    "main job, simulation": "{dataset} model=ncf",
    "main job, in process": "{dataset} model=mf federation=in_process",
    "one million users, five rounds of 10,000": _POPULATION,
}

_SECONDS_BETWEEN_SAMPLES = 0.2


def measure(command: str) -> dict[str, Any]:
    """Run one command to its end, with its data prepared.

    Args:
        command: Hydra overrides, separated by blanks.

    Returns:
        command, seconds (wall), cpu_seconds (of all processes as last seen), peak_memory_mb (sum
        over all processes; pages that processes share count once).

    Raises:
        subprocess.CalledProcessError: if the command fails; its messages are on stderr.
    """
    in_new_process(opening, command)
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "fedrec_flower", *command.split()]
        argv.append(f"output_dir={Path(folder) / 'run'}")
        start = perf_counter()
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as process:  # noqa: S603  # fixed
            peak, cpu = _watch(process)
        seconds = perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, argv)
    return {
        "command": command,
        "seconds": seconds,
        "cpu_seconds": sum(cpu.values()),
        "peak_memory_mb": peak / 1e6,
    }


def _watch(process: "subprocess.Popen[bytes]") -> tuple[int, dict[int, float]]:
    """Sample a command until it ends: bytes of memory at the peak, CPU seconds by process."""
    peak = 0
    cpu = dict[int, float]()
    root = psutil.Process(process.pid)
    while process.poll() is None:
        memory = 0
        for member in _tree(root):
            try:
                memory += _bytes_of(member)
                times = member.cpu_times()
            except (psutil.Error, OSError):  # it has just ended
                continue
            cpu[member.pid] = times.user + times.system
        peak = max(peak, memory)
        try:
            process.wait(_SECONDS_BETWEEN_SAMPLES)
        except subprocess.TimeoutExpired:
            continue
    return peak, cpu


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _bytes_of(process: psutil.Process) -> int:
    """Proportional set size where the system knows it, else resident size."""
    full = process.memory_full_info()
    return int(getattr(full, "pss", full.rss))


def jobs_table(dataset: str) -> pd.DataFrame:
    """Run every job of `JOBS` on a dataset; one row of `measure` each, with its name."""
    rows = [
        {"job": name, **measure(command.format(dataset=dataset))} for name, command in JOBS.items()
    ]
    return pd.DataFrame(rows)

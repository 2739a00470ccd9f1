"""The table of jobs runs whole commands and measures all of their processes."""

import subprocess
import sys

import pytest

from fedrec_flower.benchmark.jobs import JOBS, _watch, measure
from fedrec_flower.experiment.composition import compose
from tests.unit.benchmark.test_engines import SMALL

PARENT = """
import subprocess, sys, time
child = "x = bytearray(80_000_000); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(1.5)"
subprocess.run([sys.executable, "-c", child])
"""


def test_memory_of_child_processes_is_counted() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT]) as process:
        peak, cpu = _watch(process)
    assert peak > 80_000_000
    assert len(cpu) == 2


def test_every_job_can_be_composed() -> None:
    for command in JOBS.values():
        compose(command.format(dataset=SMALL).split())


@pytest.mark.slow
def test_measure_runs_a_command_to_its_end() -> None:
    row = measure(f"{SMALL} model=mf num_rounds=2 federation=in_process")
    assert row["seconds"] > row["cpu_seconds"] * 0.1 > 0
    assert row["peak_memory_mb"] > 100


@pytest.mark.slow
def test_a_command_that_fails_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        measure(f"{SMALL} model=mf num_rounds=2 training.learning_rate=1e30 federation=in_process")

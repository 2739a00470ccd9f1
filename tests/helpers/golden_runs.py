"""Tiny seeded runs whose numbers are committed, so that a refactoring shows what it changes.

`OMP_NUM_THREADS=1 python -m tests.helpers.golden_runs` rewrites `tests/golden.json`. A commit that
does so states which numbers change and why.
"""

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from fedrec_flower.experiment.composition import CONF
from tests.helpers.federations import Federated, run

GOLDEN = Path(__file__).parents[1] / "golden.json"
# Relative, on another machine. Kernels for other processors moved sums by 3e-6 (sasrec), by less
# than 2e-7 for every other run.
TOLERANCE = 1e-5

_SETTINGS = ("OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "NUMBA_CPU_NAME", "OMP_NUM_THREADS")
_SAMPLED = ("clients_per_round=12", "partition=user")


def _names(group: str, *left_out: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml") if file.stem not in left_out)


def _cases() -> Iterable[tuple[str, ...]]:
    """Overrides of every run: each choice of each group once, with what it needs."""
    for model in _names("model"):
        yield (f"model={model}",)
    for strategy in _names("strategy", "sums", "centralized"):
        # A server rate that suits FedAvg does not suit every strategy: it keeps its own.
        yield (f"strategy={strategy}", *_SAMPLED)
    all_clients = "strategy.aggregation=all_clients"
    yield ("privacy=central_dp", "min_completion=0.0", all_clients)
    yield ("privacy=local_dp", all_clients)
    yield ("privacy=pseudo_items",)
    yield (
        "privacy=randomized_response",
        "model=popularity",
        "privacy.epsilon=50.0",
        "num_rounds=1",
    )
    for compression in _names("compression", "none"):
        yield (f"compression={compression}",)
    for faults in _names("faults", "none"):
        yield (f"faults={faults}", "min_completion=0.0")
    for attack in _names("attack", "none", "interaction_inference", "membership_inference"):
        yield (f"attack={attack}",)
    # A split from files needs files; every other one splits the synthetic data.
    for split in _names("split", "file_folds", "leave_one_out"):
        yield (f"split={split}",)
    for partition in _names("partition", "user", "silo_attribute"):
        yield (f"partition={partition}",)
    yield ("task=rating", "evaluation=rating")


CASES = {" ".join(overrides): overrides for overrides in _cases()}


def machine() -> dict[str, str]:
    """What the bytes of a float depend on: processor, operating system, numerical libraries."""
    about = Path("/proc/cpuinfo")  # Linux alone has it
    lines = about.read_text().splitlines() if about.exists() else []
    # Kernels are chosen by the features of the processor, so its name does not suffice.
    features = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": hashlib.sha256("".join(features).encode()).hexdigest(),
        "libraries": " ".join(f"{name} {version(name)}" for name in ("numpy", "torch", "numba")),
        "settings": str({name: os.environ.get(name) for name in _SETTINGS}),
    }


def digest_of(federated: Federated) -> dict[str, Any]:
    """What is compared of a run, JSON-able.

    Returns:
        sha256 of the shared parameters and of the replies' arrays; sums over each shared
        parameter; losses and metrics of every round.
    """
    parameters = dict(sorted(federated.shared.items()))
    replies = [
        array.numpy()
        for message in federated.tap.replies
        if message.has_content() and "update" in message.content.array_records
        for _, array in sorted(message.content.array_records["update"].items())
    ]
    metrics = federated.metric_table()
    return {
        "parameters_sha256": _digest(parameters.values()),
        "replies_sha256": _digest(replies),
        "parameters": {name: _sums(value) for name, value in parameters.items()},
        "losses": [_number(loss) for _, loss in sorted(federated.watcher.losses.items())],
        "metrics": {
            f"{round_}/{part.name}/{name}": _number(value)
            for (round_, part, name), value in sorted(
                metrics.items(), key=lambda entry: (entry[0][0], entry[0][1].name, entry[0][2])
            )
        },
    }


def _digest(arrays: Iterable[np.ndarray[Any, Any]]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _sums(value: np.ndarray[Any, Any]) -> list[float]:
    """Sum of magnitudes, sum of squares, and a sum in which the order of the values matters."""
    flat = value.astype(np.float64).ravel()
    places = np.linspace(1.0, 2.0, len(flat))
    return [float(np.abs(flat).sum()), float(flat @ flat), float(np.abs(flat) @ places)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def main() -> None:
    """Run every case and write the file."""
    if os.environ.get("OMP_NUM_THREADS") != "1":  # as in tests/conftest.py
        sys.exit("sums depend on the number of threads: set OMP_NUM_THREADS=1")
    with TemporaryDirectory() as scratch:
        golden = {}
        for place, (name, overrides) in enumerate(CASES.items()):
            folder = Path(scratch) / str(place)
            golden[name] = digest_of(run(folder, Path(scratch) / "cache", overrides, None))
            sys.stderr.write(f"{place + 1}/{len(CASES)} {name}\n")
    GOLDEN.write_text(json.dumps({"machine": machine(), "runs": golden}, indent=1) + "\n")


if __name__ == "__main__":
    main()

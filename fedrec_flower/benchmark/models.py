"""Table of models: CPU seconds of a whole round of all clients and of an evaluation.

Each model trains with its own defaults on one thread. A round is complete, as in `costs`.
"""

import statistics
from typing import Any

import pandas as pd

from fedrec_flower.benchmark.costs import laps
from fedrec_flower.benchmark.measuring import in_new_process, peak_memory_mb

MODELS = (
    "model=mf", "model=mf finetune_epochs=1", "model=ncf", "model=ncf model.variant=neumf",
    "model=colr", "model=pfedrec", "model=gpfedrec", "model=fedrap", "model=fedrecon",
    "model=lightgcn", "model=autoencoder", "model=multvae", "model=gru4rec", "model=sasrec",
    "model=hybrid", "model=two_tower", "model=ials",
)  # fmt: skip


def measure(model: str, rounds: int, dataset: str) -> dict[str, Any]:
    """Run whole rounds of all clients, each followed by an evaluation of all clients.

    Args:
        model: Hydra overrides, separated by blanks.
        rounds: measured rounds, after a first one that is reported separately.
        dataset: a dataset's overrides, separated by blanks.

    Returns:
        model, round_cpu_seconds and evaluation_cpu_seconds (medians, all threads of this process),
        first_round_seconds (wall), peak_memory_mb (of this process).
    """
    overrides = [*dataset.split(), *model.split(), "evaluation.every=1"]
    _untrained, (first, _), _evaluated, *measured = laps(overrides, None, 3 + 2 * rounds)
    trained, evaluated = measured[::2], measured[1::2]
    return {
        "model": " ".join(option.removeprefix("model=") for option in model.split()),
        "round_cpu_seconds": statistics.median(cpu for _, cpu in trained),
        "evaluation_cpu_seconds": statistics.median(cpu for _, cpu in evaluated),
        "first_round_seconds": first,
        "peak_memory_mb": peak_memory_mb(),
    }


def models_table(rounds: int, dataset: str) -> pd.DataFrame:
    """Measure every model, each in a separate process; see `measure`."""
    return pd.DataFrame(in_new_process(measure, model, rounds, dataset) for model in MODELS)

"""Table of engine x model x cohort: cost of training a cohort, compared with a plain PyTorch loop.

Every row trains the same clients with the same settings (`measuring.WORK`), with one thread. The
plain loop uses `nn.Embedding`, autograd, `optim.SGD`, and copies full tables for every client.
"""

import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fedrec_flower.benchmark.measuring import WORK, in_new_process, peak_memory_mb, timed
from fedrec_flower.benchmark.plain import PlainLoop
from fedrec_flower.core.random import generator
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import make_place, set_up
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.node import open_node

MODELS = {
    "mf": ("model=mf",),
    "ncf gmf": ("model=ncf", "model.variant=gmf"),
    "ncf neumf": ("model=ncf", "model.variant=neumf", "model.hidden_dims=[32,16,8]"),
}
ENGINES = ("plain", "sequential", "vectorized")

Round = Callable[[int], None]


def measure(engine: str, model: str, cohort: int, rounds: int, dataset: str) -> dict[str, Any]:
    """Train some rounds in this process, with one thread.

    Args:
        engine: "plain", or an engine of `training.engine`.
        model: a key of `MODELS`.
        cohort: clients per round, at most all of them.
        rounds: measured rounds, after a first one that is reported separately.
        dataset: a dataset's overrides, separated by blanks.

    Returns:
        engine, model, clients, clients_per_cpu_second, round_seconds (median wall),
        first_round_seconds, peak_memory_mb (of this process).
    """
    torch.set_num_threads(1)
    training_engine = engine if engine != "plain" else "sequential"
    overrides = [*dataset.split(), *MODELS[model], *WORK, f"training.engine={training_engine}"]
    config, _ = compose(overrides)
    with tempfile.TemporaryDirectory() as folder:
        setup = set_up(config, RunFolder(Path(folder)))
        data = setup.data
        size = min(cohort, data.num_clients)
        place = make_place(data, Path(folder) / "clients")
        node = open_node(setup.plan.job.to_json(), place)
        shared = node.model.initial(node.shared_names, generator(1, "benchmark"))
        parameters = [shared[name] for name in node.shared_names]

        def clients(round_: int) -> list[int]:
            rng = generator(1, "benchmark-cohort", round_)
            chosen: list[int] = np.sort(rng.choice(data.num_clients, size, replace=False)).tolist()
            return chosen

        def run_engine(round_: int) -> None:
            CohortClient(node, clients(round_)).fit(parameters, {"round": round_})

        plain = PlainLoop(node.model, data, parameters)
        run: Round = run_engine if engine != "plain" else lambda r: plain.round(clients(r), r)
        laps = [timed(partial(run, round_)) for round_ in range(rounds + 1)]
    wall, cpu = zip(*laps[1:], strict=True)
    return {
        "engine": engine,
        "model": model,
        "clients": size,
        "clients_per_cpu_second": size / statistics.median(cpu),
        "round_seconds": statistics.median(wall),
        "first_round_seconds": laps[0][0],
        "peak_memory_mb": peak_memory_mb(),
    }


def rounds_table(cohorts: list[int], rounds: int, dataset: str) -> pd.DataFrame:
    """Measure every engine, model and cohort, each in a separate process.

    Args:
        cohorts: clients per round, at most all of them.
        rounds: measured rounds per row.
        dataset: a dataset's overrides, separated by blanks.

    Returns:
        One row of `measure` each, and ratio: clients_per_cpu_second relative to the plain loop.
    """
    rows = []
    for model in MODELS:
        for cohort in cohorts:
            measured = [
                in_new_process(measure, engine, model, cohort, rounds, dataset)
                for engine in ENGINES
            ]
            base = measured[0]["clients_per_cpu_second"]
            rows += [{**row, "ratio": row["clients_per_cpu_second"] / base} for row in measured]
    return pd.DataFrame(rows)

"""Table of engine x model x cohort: clients trained per CPU second, beside a plain PyTorch loop.

Every row trains the same clients with the same settings (`measuring.WORK`), with one thread. The
plain loop uses `nn.Embedding`, autograd, `optim.SGD`, and copies full tables for every client. All
engines take turns in one process, so that the load of the machine is the same for all.
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

from fedrec_flower.benchmark.measuring import WORK, in_new_process, timed
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

Round = Callable[[int], list[int]]


def measure(model: str, cohort: int, rounds: int, dataset: str) -> list[dict[str, Any]]:
    """Train some rounds with every engine in turn, in this process, with one thread.

    Args:
        model: a key of `MODELS`.
        cohort: clients per round, at most all of them.
        rounds: measured rounds of each engine, after a first one that is reported separately.
        dataset: a dataset's overrides, separated by blanks.

    Returns:
        For each engine: engine, model, clients, clients_per_cpu_second, ratio (to the plain loop),
        round_seconds (median wall), first_round_seconds.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            engine: _rounds(engine, model, cohort, dataset, Path(folder) / engine)
            for engine in ENGINES
        }
        laps = [
            {engine: timed(partial(run, round_)) for engine, run in runs.items()}
            for round_ in range(rounds + 1)
        ]
        size = len(runs["plain"](rounds + 1))
    wall, cpu = (
        {engine: statistics.median(lap[engine][clock] for lap in laps[1:]) for engine in ENGINES}
        for clock in (0, 1)
    )
    return [
        {
            "engine": engine,
            "model": model,
            "clients": size,
            "clients_per_cpu_second": size / cpu[engine],
            "ratio": cpu["plain"] / cpu[engine],
            "round_seconds": wall[engine],
            "first_round_seconds": laps[0][engine][0],
        }
        for engine in ENGINES
    ]


def _rounds(engine: str, model: str, cohort: int, dataset: str, folder: Path) -> Round:
    """Return a function that trains the cohort of a round and returns its clients."""
    training_engine = engine if engine != "plain" else "sequential"
    overrides = [*dataset.split(), *MODELS[model], *WORK, f"training.engine={training_engine}"]
    config, _ = compose(overrides)
    setup = set_up(config, RunFolder.create(folder))
    data = setup.data
    node = open_node(setup.plan.job.to_json(), make_place(data, folder / "clients"))
    shared = node.model.initial(node.shared_names, generator(1, "benchmark"))
    parameters = [shared[name] for name in node.shared_names]
    plain = PlainLoop(node.model, data, parameters)

    def train(round_: int) -> list[int]:
        rng = generator(1, "benchmark-cohort", round_)
        size = min(cohort, data.num_clients)
        clients: list[int] = np.sort(rng.choice(data.num_clients, size, replace=False)).tolist()
        if engine == "plain":
            plain.round(clients, round_)
        else:
            CohortClient(node, clients).fit(parameters, {"round": round_})
        return clients

    return train


def engines_table(cohorts: list[int], rounds: int, dataset: str) -> pd.DataFrame:
    """Measure every engine, model and cohort; the engines of a row group share a process.

    Args:
        cohorts: clients per round, at most all of them.
        rounds: measured rounds per row.
        dataset: a dataset's overrides, separated by blanks.

    Returns:
        The rows of `measure`.
    """
    return pd.DataFrame(
        row
        for model in MODELS
        for cohort in cohorts
        for row in in_new_process(measure, model, cohort, rounds, dataset)
    )

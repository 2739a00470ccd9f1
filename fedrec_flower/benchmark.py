"""`python -m fedrec_flower.benchmark`: what a round costs, beside a plain PyTorch loop.

Every row trains the same clients on the same kind of work in this one run, one thread each: a
client takes all its interactions plus four negatives each, one epoch, batches of 128, SGD. The
plain loop is what one would write without this suite: `nn.Embedding`, autograd, `optim.SGD`, full
tables copied for every client.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional

from fedrec_flower.cli import compose
from fedrec_flower.client import CohortClient, open_node
from fedrec_flower.experiment import make_job, prepare_data
from fedrec_flower.models.base import Recommender
from fedrec_flower.prepared import Prepared
from fedrec_flower.results import markdown
from fedrec_flower.seeding import generator

_WORK = (
    "training.local_epochs=1", "training.batch_size=128", "training.learning_rate=0.5",
    "training.dense_learning_rate=0.5", "training.weight_decay=0", "training.num_negatives=4",
    "model.embedding_dim=16", "model.init_std=0.1",
)  # fmt: skip
MODELS = {
    "mf": ("model=mf",),
    "ncf gmf": ("model=ncf", "model.variant=gmf"),
    "ncf neumf": ("model=ncf", "model.variant=neumf", "model.hidden_dims=[32,16,8]"),
}
ENGINES = ("plain", "sequential", "vectorized")

Round = Callable[[int], None]


def measure(engine: str, model: str, cohort: int, rounds: int, dataset: str) -> dict[str, Any]:
    """Train some rounds in this process, one thread.

    Args:
        engine: "plain", or an engine of `training.engine`.
        model: a key of `MODELS`.
        cohort: clients a round; more than there are means all.
        rounds: rounds measured, after a first one that is told apart.
        dataset: a dataset's overrides, separated by blanks.

    Returns:
        engine, model, clients, clients_per_cpu_second, round_seconds (median wall),
        first_round_seconds, peak_memory_mb (of this process).
    """
    torch.set_num_threads(1)
    named = engine if engine != "plain" else "sequential"
    overrides = [*dataset.split(), *MODELS[model], *_WORK, f"training.engine={named}"]
    config, _ = compose(overrides)
    data = prepare_data(config)
    size = min(cohort, data.num_clients)
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(config, data, Path(folder)) | {"shares": True}
        node = open_node(json.dumps(job))
        shared = node.model.initial(node.shared_names, generator(1, "benchmark"))
        parameters = [shared[name] for name in node.shared_names]

        def clients(round_: int) -> list[int]:
            rng = generator(1, "benchmark-cohort", round_)
            chosen: list[int] = np.sort(rng.choice(data.num_clients, size, replace=False)).tolist()
            return chosen

        def ours(round_: int) -> None:
            CohortClient(node, clients(round_)).fit(parameters, {"round": round_})

        plain = PlainLoop(node.model, data, parameters)
        run: Round = ours if engine != "plain" else lambda r: plain.round(clients(r), r)
        timed = [_timed(run, round_) for round_ in range(rounds + 1)]
    wall, cpu = zip(*timed[1:], strict=True)
    return {
        "engine": engine,
        "model": model,
        "clients": size,
        "clients_per_cpu_second": size / statistics.median(cpu),
        "round_seconds": statistics.median(wall),
        "first_round_seconds": timed[0][0],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


class PlainLoop:
    """Federated averaging as one would write it at first: a loop over clients, full tables.

    Args:
        model: gives the layers' shapes; it is not trained itself.
        data: the prepared data.
        parameters: initial shared parameters.
    """

    def __init__(
        self, model: Recommender, data: Prepared, parameters: list[NDArray[np.float32]]
    ) -> None:
        self.data, self.model = data, model
        self.names = model.shared_names()
        self.shared = [torch.from_numpy(value.copy()) for value in parameters]
        width = model.get_parameter("user_embedding.weight").shape[1]
        self.users = torch.randn(data.num_clients, 1, width) * 0.1

    def round(self, clients: list[int], round_: int) -> None:
        """One round of weighted averaging."""
        total = [torch.zeros_like(value) for value in self.shared]
        weight = 0
        for client in clients:
            count = self._train(client, round_)
            for name, summed, value in zip(self.names, total, self.shared, strict=True):
                summed.add_(self.model.get_parameter(name).data - value, alpha=count)
            weight += count
        for summed, value in zip(total, self.shared, strict=True):
            value.add_(summed / weight)

    def _train(self, client: int, round_: int) -> int:
        """One epoch of one client, all its parameters copied in."""
        for name, value in zip(self.names, self.shared, strict=True):
            self.model.get_parameter(name).data = value.clone()
        self.model.get_parameter("user_embedding.weight").data = self.users[client]
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        liked = self.data.client(client).train.item.astype(np.int64)
        rng = generator(1, "benchmark-negatives", round_, client)
        items = np.concatenate([liked, rng.integers(0, self.data.num_items, 4 * len(liked))])
        order = torch.from_numpy(rng.permutation(len(items)))
        item, label = torch.from_numpy(items)[order], (order < len(liked)).float()
        for start in range(0, len(item), 128):
            batch = item[start : start + 128]
            optimizer.zero_grad()
            scores = self.model(torch.zeros_like(batch), batch)
            loss = functional.binary_cross_entropy_with_logits(scores, label[start : start + 128])
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        return len(liked)


def _timed(run: Round, round_: int) -> tuple[float, float]:
    wall, cpu = perf_counter(), process_time()
    run(round_)
    return perf_counter() - wall, process_time() - cpu


def table(cohorts: list[int], rounds: int, dataset: str) -> pd.DataFrame:
    """Measure every engine, model and cohort, each in a process of its own."""
    rows = []
    for model in MODELS:
        for cohort in cohorts:
            measured = [_in_new_process(e, model, cohort, rounds, dataset) for e in ENGINES]
            base = measured[0]["clients_per_cpu_second"]
            rows += [{**row, "ratio": row["clients_per_cpu_second"] / base} for row in measured]
    return pd.DataFrame(rows)


def _in_new_process(
    engine: str, model: str, cohort: int, rounds: int, dataset: str
) -> dict[str, Any]:
    """A fresh process, so that peak memory and the first round are the row's own."""
    call = f"measure({engine!r}, {model!r}, {cohort}, {rounds}, {dataset!r})"
    code = f"import json; from fedrec_flower.benchmark import measure; print(json.dumps({call}))"
    done = subprocess.run(  # noqa: S603  # our own interpreter, our own words
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fedrec_flower.benchmark", description="What a round costs."
    )
    parser.add_argument("--cohorts", type=int, nargs="+", default=[100, 1_000_000])
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds a row")
    parser.add_argument("--dataset", default="dataset=ml-100k", help="Hydra overrides")
    parser.add_argument("--to", type=Path, help="folder for benchmark.csv and benchmark.md")
    chosen = parser.parse_args()
    measured = table(chosen.cohorts, chosen.rounds, chosen.dataset)
    text = markdown(measured)
    print(text)  # noqa: T201  # the command's output
    if chosen.to:
        chosen.to.mkdir(parents=True, exist_ok=True)
        measured.to_csv(chosen.to / "benchmark.csv", index=False)
        (chosen.to / "benchmark.md").write_text(text)


if __name__ == "__main__":
    main()

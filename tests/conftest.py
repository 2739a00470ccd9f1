"""Small real objects that many tests share: data, prepared folders, clients, federations."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from fedrec_flower.interactions import Interactions, Part, Partition
from fedrec_flower.prepared import ClientData, Columns, Prepared, prepare
from fedrec_flower.splits.leave_one_out import LeaveOneOut

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flwr.app import Context, Message
    from flwr.serverapp import Grid

    from fedrec_flower.experiment import Setup
    from fedrec_flower.models import Recommender
    from fedrec_flower.models.base import Tensors
    from fedrec_flower.strategies import FederatedStrategy, Outcome
    from fedrec_flower.strategies.plan import Metrics
    from fedrec_flower.training import LocalTraining

# Tests are small: threads cost more than they bring. Read when PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is slow, not wrong: no deadline.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# --- data -------------------------------------------------------------------------------------

Histories = Sequence[Sequence[int]]  # the item codes of each user


def _columns(items: Histories, ratings: Sequence[Sequence[float]] | None) -> Columns:
    offsets = np.cumsum([0, *map(len, items)])
    flat = np.array([item for history in items for item in history], np.int32)
    if ratings is None:
        return Columns(offsets, flat, None)
    values = [rating for history in ratings for rating in history]
    return Columns(offsets, flat, np.array(values, np.float32))


class MakeClient(Protocol):
    """Makes what one client holds."""

    def __call__(
        self,
        train: Histories,
        validation: Histories | None = None,
        test: Histories | None = None,
        *,
        ratings: Sequence[Sequence[Sequence[float]]] | None = None,
        client: int = 0,
    ) -> ClientData:
        """One history per user and part; ratings come per part, in the same shape."""
        ...


@pytest.fixture(scope="session")
def make_client() -> MakeClient:
    """What one client holds, from the item codes of each of its users."""

    def make(
        train: Histories,
        validation: Histories | None = None,
        test: Histories | None = None,
        *,
        ratings: Sequence[Sequence[Sequence[float]]] | None = None,
        client: int = 0,
    ) -> ClientData:
        nothing: Histories = [[] for _ in train]
        parts = (train, validation or nothing, test or nothing)
        values = ratings or (None, None, None)
        columns = [_columns(*pair) for pair in zip(parts, values, strict=True)]
        return ClientData(client, 1, 0, np.arange(len(train), dtype=np.int32), *columns)

    return make


@pytest.fixture(scope="session")
def small_data() -> Interactions:
    """Twelve users who each rated 6 to 12 of thirty items, at times of their own."""
    rng = np.random.default_rng(5)
    histories = [rng.choice(30, rng.integers(6, 13), replace=False) for _ in range(12)]
    user = np.repeat(np.arange(12), [len(history) for history in histories])
    return Interactions(
        user=user.astype(np.int32),
        item=np.concatenate(histories).astype(np.int32),
        rating=rng.integers(1, 6, len(user)).astype(np.float32),
        timestamp=rng.permutation(len(user)),
        user_ids=np.arange(12) * 7 + 3,
        item_ids=np.array([f"item {code:02}" for code in range(30)]),
        items=pd.DataFrame({"title": [f"Title {code}" for code in range(30)]}),
        name="small",
    )


class PrepareSmall(Protocol):
    """Prepares the small data for a federation."""

    def __call__(self, client_of_user: Sequence[int] | None = None) -> Prepared:
        """One client per user unless told who holds whom."""
        ...


@pytest.fixture
def prepare_small(small_data: Interactions, tmp_path: Path) -> PrepareSmall:
    """A prepared folder of the small data, split leave-one-out."""

    def make(client_of_user: Sequence[int] | None = None) -> Prepared:
        holder = np.arange(12) if client_of_user is None else np.array(client_of_user)
        partition = Partition(holder.astype(np.int32), np.arange(holder.max() + 1))
        split = LeaveOneOut(ties="hash", negatives="honest").split(small_data, seed=0)
        cooked = (small_data, split, partition, "digest", pd.DataFrame())
        return prepare(tmp_path, {"holder": holder.tolist()}, lambda: cooked)

    return make


# --- training ---------------------------------------------------------------------------------


class TrainPlainly(Protocol):
    """Trains whole tables in an ordinary PyTorch loop."""

    def __call__(
        self,
        model: "Recommender",
        data: ClientData,
        training: "LocalTraining",
        round_: int,
        *,
        num_items: int,
        seed: int,
    ) -> float:
        """Change the model in place; returns the mean loss over all samples."""
        ...


@pytest.fixture(scope="session")
def train_plainly() -> TrainPlainly:
    """The reference: what one client's round means, on whole tables, with nothing clever."""
    import torch
    from torch.nn import functional

    from fedrec_flower.training import Cohort
    from fedrec_flower.training.samples import Sampler

    def batch_loss(
        model: "Recommender", loss: str, user: Any, item: Any, target: Any
    ) -> torch.Tensor:
        if loss == "bpr":
            liked, other = model(user, item[:, 0]), model(user, item[:, 1])
            return -functional.logsigmoid(liked - other).mean()
        scores = model(user, item[:, 0])
        if loss == "bce":
            return functional.binary_cross_entropy(torch.sigmoid(scores), target)
        return ((scores - target) ** 2).mean()

    def train(
        model: "Recommender",
        data: ClientData,
        training: "LocalTraining",
        round_: int,
        *,
        num_items: int,
        seed: int,
    ) -> float:
        rows = model.user_rows | model.item_rows
        tables = [value for name, value in model.named_parameters() if name in rows]
        dense = [value for name, value in model.named_parameters() if name not in rows]
        groups = [
            {"params": tables, "lr": training.learning_rate, "weight_decay": training.weight_decay},
            {"params": dense, "lr": training.dense_learning_rate},
        ]
        kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[training.optimizer]
        optimizer = kind([group for group in groups if group["params"]])
        task: Literal["rating", "ranking"] = "rating" if training.loss == "mse" else "ranking"
        pairwise = training.loss == "bpr"
        sampler = Sampler(task, pairwise, training.num_negatives, num_items, seed)
        cohort = Cohort.gather([data], spare_held_out=False)
        losses: list[float] = []
        for epoch in range(training.local_epochs):
            samples = sampler.draw(cohort, round_, epoch)
            columns = [samples.user, samples.item, samples.target]
            step = training.batch_size or max(len(samples), 1)
            for start in range(0, len(samples), step):
                batch = [torch.from_numpy(column[start : start + step]) for column in columns]
                optimizer.zero_grad()
                loss = batch_loss(model, training.loss, *batch)
                torch.autograd.backward(loss)
                optimizer.step()
                losses += [loss.item()] * len(batch[0])
        return float(np.mean(losses)) if losses else 0.0

    return train


# --- federations ------------------------------------------------------------------------------

SMALL = (
    "federation=in_process",
    "dataset=synthetic",
    "dataset.num_users=24",
    "dataset.num_items=60",
    "dataset.num_interactions=400",
    "dataset.min_per_user=8",
    "model.embedding_dim=8",
    "training.optimizer=sgd",
    "training.learning_rate=0.5",
    "training.dense_learning_rate=0.05",
    "training.weight_decay=0.01",
    "training.local_epochs=1",
    "training.batch_size=32",
    "evaluation.every=3",
    "num_rounds=3",
)
SMALL_STRATEGY = ("strategy=fedavg", "strategy.server_learning_rate=1.0")
SMALL_RANKING = ("evaluation.num_negatives=20", "evaluation.metrics=[hr@10,ndcg@10]")


@dataclass(slots=True)
class Watcher:
    """Remembers what a strategy tells its observer."""

    losses: dict[int, float] = field(default_factory=dict)
    metrics: dict[int, "Metrics"] = field(default_factory=dict)
    num_evaluated: dict[int, int] = field(default_factory=dict)

    def trained(self, round_: int, loss: float, num_clients: int) -> None:
        """See `Observer.trained`."""
        del num_clients
        self.losses[round_] = loss

    def evaluated(self, round_: int, metrics: "Metrics", num_clients: int) -> None:
        """See `Observer.evaluated`."""
        self.metrics[round_], self.num_evaluated[round_] = metrics, num_clients


# What a test may do to replies: it sees the messages sent, and returns the replies to be had.
Meddle = Callable[["list[Message]", "list[Message]"], "list[Message]"]


@dataclass(frozen=True, slots=True)
class Federated:
    """A federation after its last round, and everything it said."""

    setup: "Setup"
    strategy: "FederatedStrategy"
    outcome: "Outcome"
    watcher: Watcher
    store: Path
    asked: "list[Message]"
    replies: "list[Message]"
    contexts: "list[Context]"

    @property
    def job(self) -> str:
        """What every node was told of the run."""
        return self.strategy._job

    @property
    def shared(self) -> "Tensors":
        """Global parameters after the last round."""
        return self.strategy._parameters

    @property
    def personal(self) -> dict[str, NDArray[Any]]:
        """Personal parameters after the last round: a row per user or per client."""
        files = (self.store / "current").glob("*.npy")
        return {file.stem: np.load(file) for file in files if file.stem != "written"}

    def metric_table(self) -> dict[tuple[int, Part, str], float]:
        """Every metric of every evaluated round."""
        return {
            (round_, part, name): value
            for round_, parts in self.watcher.metrics.items()
            for part, values in parts.items()
            for name, value in values.items()
        }


class Federate(Protocol):
    """Runs a small federation."""

    def __call__(self, *overrides: str, meddle: Meddle | None = None) -> Federated:
        """Overrides as on the command line; `meddle` may look at and change the replies."""
        ...


@pytest.fixture(scope="session")
def federate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federate]:
    """Run 24 synthetic users, in this process, by the real configuration and strategies."""
    from fedrec_flower.client import open_node
    from fedrec_flower.config import build
    from fedrec_flower.experiment import set_up
    from fedrec_flower.federation import federate as federate_with
    from fedrec_flower.results import RunFolder

    cache = tmp_path_factory.mktemp("cache")  # data are prepared once a session

    def run(*overrides: str, meddle: Meddle | None = None) -> Federated:
        chosen = any(override.startswith("strategy=") for override in overrides)
        by_strategy = () if chosen else SMALL_STRATEGY
        by_task = () if "task=rating" in overrides else SMALL_RANKING
        where = f"dataset.cache_dir={cache}"
        config = _configured([*SMALL, *by_strategy, *by_task, where, *overrides])
        folder = RunFolder.create(tmp_path_factory.mktemp("federated"))
        setup, watcher = set_up(config, folder), Watcher()
        strategy = build("strategy", config["strategy"], plan=setup.plan, observer=watcher)
        engine = _Tapped(setup.engine.num_nodes, meddle or (lambda _, replies: replies))
        log = folder.path / "flower.log"
        outcome = federate_with(engine, strategy, setup.initial(strategy), log)
        return Federated(
            setup,
            strategy,
            outcome,
            watcher,
            folder.path / "clients",
            engine.asked,
            engine.replies,
            engine.contexts,
        )

    yield run
    open_node.cache_clear()  # or open files would outlive their folder


def _configured(overrides: Sequence[str]) -> dict[str, Any]:
    """What Hydra would compose; it composes each choice of groups once, values are put on top."""
    from omegaconf import OmegaConf

    from fedrec_flower.cli import CONF

    choices = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir()]
    values = [o for o in overrides if o not in choices]
    config = OmegaConf.create(_composed(tuple(choices)))
    OmegaConf.set_struct(config, value=True)
    config.merge_with_dotlist([value for value in values if not value.startswith("+")])
    OmegaConf.set_struct(config, value=False)
    config.merge_with_dotlist([value[1:] for value in values if value.startswith("+")])
    container: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]  # a mapping at the root
    return container


@lru_cache
def _composed(choices: tuple[str, ...]) -> dict[str, Any]:
    from fedrec_flower.cli import compose

    return compose(list(choices))[0]


@dataclass(frozen=True, slots=True)
class _Tapped:
    """The in-process engine with an ear on the wire, and a hand."""

    num_nodes: int
    meddle: Meddle
    asked: "list[Message]" = field(default_factory=list)
    replies: "list[Message]" = field(default_factory=list)
    contexts: "list[Context]" = field(default_factory=list)

    def run(self, serve: "Callable[[Grid], None]", log: Path) -> None:
        from fedrec_flower.client.app import app
        from fedrec_flower.federation import InProcessGrid
        from fedrec_flower.federation.logs import flower_logs_to

        tap = self

        class TappedGrid(InProcessGrid):
            def send_and_receive(
                self, messages: "Iterable[Message]", *, timeout: float | None = None
            ) -> "Iterable[Message]":
                asked = list(messages)
                replies = list(super().send_and_receive(asked, timeout=timeout))
                tap.asked.extend(asked)
                tap.replies.extend(replies)
                return tap.meddle(asked, replies)

        with flower_logs_to(log):
            grid = TappedGrid(app, self.num_nodes)
            self.contexts.extend(grid._contexts.values())
            serve(grid)

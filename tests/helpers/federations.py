"""Small federations, run in this process by the real configuration and strategies."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from flwr.app import Context, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray
from omegaconf import OmegaConf
from typing_extensions import override

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Part
from fedrec_flower.experiment.composition import CONF, compose
from fedrec_flower.experiment.run import Setup, set_up
from fedrec_flower.experiment.run_folder import RunFolder, holds_a_run
from fedrec_flower.federation import transport as federation
from fedrec_flower.federation.client import deployed
from fedrec_flower.federation.client.app import app
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.job import NodeJob, NodePlace
from fedrec_flower.federation.results import Evaluated, Metrics, Outcome, TrainedRound
from fedrec_flower.federation.server.callback import Callback
from fedrec_flower.federation.server.loop import Server
from fedrec_flower.federation.transport.flower_log import flower_logs_to
from fedrec_flower.federation.transport.in_process import InProcessGrid
from fedrec_flower.strategies.base import FederatedStrategy

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

# What a test may do to replies: it sees the messages sent, and returns the replies to be had.
Meddle = Callable[[list[Message], list[Message]], list[Message]]


@dataclass(slots=True)
class Watcher(Callback):
    """Records the arguments of every callback."""

    losses: dict[int, float] = field(default_factory=dict)
    replied: dict[int, int] = field(default_factory=dict)
    lost: dict[int, dict[str, int]] = field(default_factory=dict)
    more: dict[int, dict[str, float]] = field(default_factory=dict)
    metrics: dict[int, Metrics] = field(default_factory=dict)
    num_evaluated: dict[int, int] = field(default_factory=dict)
    began_after: int = -1
    checkpoints: list[Checkpoint] = field(default_factory=list)

    def on_start(self, round_: int) -> None:
        """See `Callback.on_start`."""
        self.began_after = round_

    @override
    def after_round(self, trained: TrainedRound) -> None:
        self.losses[trained.round] = trained.loss
        self.replied[trained.round] = trained.num_clients
        self.lost[trained.round] = dict(trained.failures)
        self.more[trained.round] = dict(trained.metrics)

    @override
    def after_evaluation(self, evaluated: Evaluated) -> None:
        self.metrics[evaluated.round] = evaluated.metrics
        self.num_evaluated[evaluated.round] = evaluated.num_clients

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """See `Callback.on_checkpoint`."""
        self.checkpoints.append(checkpoint)


@dataclass(frozen=True, slots=True)
class Tap:
    """The in-process engine with an ear on the wire, and a hand."""

    num_nodes: int
    meddle: Meddle
    own: Mapping[str, str] | None = None  # of deployed nodes, their `--node-config`
    asked: list[Message] = field(default_factory=list)
    replies: list[Message] = field(default_factory=list)
    contexts: list[Context] = field(default_factory=list)
    timeouts: list[float | None] = field(default_factory=list)

    def run(self, serve: Callable[[Grid], None], log: Path) -> None:
        """See `Transport.run`."""
        grid = _TappedGrid(self)
        self.contexts.extend(grid._contexts.values())
        with flower_logs_to(log):
            serve(grid)


class _TappedGrid(InProcessGrid):
    def __init__(self, tap: Tap) -> None:
        super().__init__(app if tap.own is None else deployed.app, tap.num_nodes, tap.own)
        self._tap = tap

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        asked = list(messages)
        self._tap.timeouts.append(timeout)
        replies = list(super().send_and_receive(asked, timeout=timeout))
        self._tap.asked.extend(asked)
        self._tap.replies.extend(replies)
        return self._tap.meddle(asked, replies)


@dataclass(frozen=True, slots=True)
class Federated:
    """A federation after its last round, and everything it said."""

    config: dict[str, Any]
    setup: Setup
    server: Server
    outcome: Outcome
    watcher: Watcher
    store: Path
    tap: Tap

    @property
    def job(self) -> NodeJob:
        """The job that every node received."""
        return NodeJob.from_json(self.server.dispatcher.address.job)

    @property
    def place(self) -> NodePlace:
        """The paths of the nodes."""
        return NodePlace.from_json(self.server.dispatcher.address.place)

    @property
    def header(self) -> dict[str, str]:
        """The job and the place as messages carry them."""
        return {"job": self.job.to_json(), "place": self.place.to_json()}

    def open_node(self, *, store: Path | None = None, **changes: Any) -> Node:
        """A node that hosts all clients.

        Args:
            store: folder of the clients' state, instead of the run's.
            changes: fields of the job that replace those of the run.
        """
        place = self.place if store is None else replace(self.place, store=str(store))
        return open_node(replace(self.job, **changes).to_json(), place)

    @property
    def strategy(self) -> FederatedStrategy:
        """The algorithm of the server."""
        return self.server.strategy

    @property
    def shared(self) -> Tensors:
        """Global parameters after the last round."""
        return self.server.parameters

    @property
    def personal(self) -> dict[str, NDArray[Any]]:
        """Personal parameters after the last round: a row per user or per client."""
        names = {name for name, _ in self.setup.model.named_parameters()}
        files = (self.store / "current").glob("*.npy")
        return {file.stem: np.load(file) for file in files if file.stem in names}

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

    def __call__(
        self, *overrides: str, meddle: Meddle | None = None, folder: Path | None = None
    ) -> Federated:
        """Overrides as on the command line; `meddle` may look at and change the replies.

        A run whose checkpoint lies in the folder goes on.
        """
        ...


def run(folder: Path, cache: Path, overrides: Sequence[str], meddle: Meddle | None) -> Federated:
    """Run 24 synthetic users, unless the overrides say otherwise.

    Args:
        folder: for the run; empty, or with a checkpoint to go on from.
        cache: for prepared data.
        overrides: as on the command line.
        meddle: may look at and change the replies.
    """
    config = _configured([*_defaults(overrides), f"dataset.cache_dir={cache}", *overrides])
    place = RunFolder(folder) if holds_a_run(folder) else RunFolder.create(folder)
    setup, watcher = set_up(config, place), Watcher()
    server = setup.server(config, [watcher])
    setup.privacy_setup.check(server.strategy)
    if (saved := place.checkpoints.newest()) is not None:
        place.checkpoints.restore(saved)
        server.resume(saved)
    tap = Tap(config["federation"]["num_nodes"], meddle or (lambda _, replies: replies))
    initial = setup.initial(server.strategy)
    outcome = federation.federate(tap, server, initial, folder / "flower.log")
    return Federated(config, setup, server, outcome, watcher, folder / "clients", tap)


def _defaults(overrides: Sequence[str]) -> tuple[str, ...]:
    model = next((o for o in overrides if o.startswith("model=")), "model=mf")
    whole = _composed((model,))
    # A model that is solved brings its own strategy.
    chosen = any(override.startswith("strategy=") for override in overrides)
    by_strategy = () if chosen or whole["strategy"]["name"] == "sums" else SMALL_STRATEGY
    by_task = () if "task=rating" in overrides else SMALL_RANKING
    dimension = () if "embedding_dim" in whole["model"] else ("model.embedding_dim=8",)
    small = [override for override in SMALL if override not in dimension]
    return (*small, *by_strategy, *by_task)


def _configured(overrides: Sequence[str]) -> dict[str, Any]:
    """What Hydra would compose; it composes each choice of groups once, values are put on top."""
    choices = [o for o in overrides if (CONF / o.partition("=")[0].partition("@")[0]).is_dir()]
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
    return compose(list(choices))[0]

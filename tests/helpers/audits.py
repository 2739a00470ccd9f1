"""Trials with the code that nodes and servers run, for `fedrec_flower.privacy.audit`.

Few trials make whole replies, of which each number is a score: a value without noise separates two
data sets after a few trials. Many trials draw only the noise, all of them in one call of the
mechanism: the size of the noise needs many trials, and the other numbers are the same in each.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import urandom
from pathlib import Path
from typing import Any
from unittest.mock import patch
from zlib import crc32

import numpy as np
import pandas as pd
from flwr.app import Message
from numpy.typing import NDArray

from fedrec_flower.communication.schema import TrainReply
from fedrec_flower.communication.validation import update_sum
from fedrec_flower.core.random import Secret
from fedrec_flower.core.types import Arrays, IndexArray
from fedrec_flower.core.updates import ROW_WEIGHT, UpdateSum
from fedrec_flower.data.interactions import Interactions, Part, Partition, Split
from fedrec_flower.data.partitions.statistics import partition_table
from fedrec_flower.data.prepare import prepare
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.experiment import run as experiment
from fedrec_flower.experiment.composition import compose_deployment
from fedrec_flower.experiment.run import Setup
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.client.deployed import app
from fedrec_flower.federation.transport.base import federate
from fedrec_flower.federation.transport.in_process import InProcessGrid
from fedrec_flower.privacy.central import UNCLIPPED
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.noise import NoiseSource, NoiseStream
from fedrec_flower.training.trainer import LocalTrainer, Trained
from tests.helpers.federations import Meddle, Tap, Watcher

Floats = NDArray[np.float64]
Holdings = Sequence[Sequence[Sequence[int]]]  # the items of each user of each client

TINY = (
    "federation=in_process",
    "randomness=private",
    "dataset=synthetic",
    "evaluation.metrics=[hr@1]",
    "evaluation.num_negatives=0",
    "evaluation.top_k=1",
    "evaluation.select_by=hr@1",
    "checkpoint_every=null",
)
GRADIENTS = (
    "model=mf",
    "model.embedding_dim=1",
    "strategy=fedavg",
    "strategy.aggregation=all_clients",
    "training.local_epochs=1",
    "training.num_negatives=1",
    "training.learning_rate=1.0",
    "privacy.delta=0.001",
    "privacy.clip_norm=0.1",
)


def prepared(cache: Path, clients: Holdings, num_items: int) -> Prepared:
    """A federation that trains on all interactions of its users, without held-out items."""
    users = [items for client in clients for items in client]
    holder = np.repeat(np.arange(len(clients)), [len(client) for client in clients])
    user = np.repeat(np.arange(len(users)), [len(items) for items in users])
    met = Interactions(
        user=user.astype(np.int32),
        item=np.array([item for items in users for item in items], np.int32),
        rating=None,
        timestamp=np.arange(len(user)),
        user_ids=np.arange(len(users)),
        item_ids=np.arange(num_items),
        users=pd.DataFrame(index=pd.RangeIndex(len(users))),
        items=pd.DataFrame(index=pd.RangeIndex(num_items)),
        name="tiny",
    )
    split = Split(np.full(len(user), Part.TRAIN, np.int8))
    partition = Partition(holder.astype(np.int32), np.arange(len(clients)))
    table = partition_table(met, split, partition)
    cache_key = {"clients": [[list(items) for items in client] for client in clients]}
    return prepare(cache, cache_key, lambda: (met, split, partition, "tiny", table))


@dataclass(frozen=True, slots=True)
class Deployed:
    """A finished deployed run with one node for each client, whose requests can be sent again.

    Attributes:
        setup: the run.
        tap: the requests and replies of the run.
        facts: the statement about privacy at the end of the run.
    """

    setup: Setup
    tap: Tap
    facts: Mapping[str, Any]

    def asked(self, client: int) -> list[Message]:
        """The training requests to a client's node, in order."""
        return [
            message
            for message in self.tap.asked
            if message.metadata.message_type == "train"
            and message.metadata.dst_node_id == client + 1
        ]

    def trials(self, client: int, count: int) -> list[list[Message]]:
        """All replies of a client's node in the run, in `count` independent trials.

        The client trains once; each trial draws new noise.
        """
        requests, context = self.asked(client), self.tap.contexts[client]
        learnt: dict[tuple[int, ...], list[Trained]] = {}
        train = LocalTrainer.train

        def remembered(
            self: LocalTrainer, clients: Any, given: Any, personal: Any, round_: int, guide: Any
        ) -> list[Trained]:
            key = (round_, *(data.client for data in clients))
            if key not in learnt:
                learnt[key] = list(train(self, clients, given, personal, round_, guide))
            return learnt[key]

        persistent_stream = NoiseSource.persistent_stream

        def sent() -> list[Message]:
            """One trial; its repeated draws come from a new secret."""
            secret = Secret(urandom(32))

            def drawn(self: NoiseSource, role: str, client: int) -> NoiseStream:
                return persistent_stream(replace(self, seed=secret), role, client)

            with patch.object(NoiseSource, "persistent_stream", drawn):
                return [app(message, context) for message in requests]

        with patch.object(LocalTrainer, "train", remembered):
            return [sent() for _ in range(count)]

    def noisy_updates(self, client: int, count: int) -> list[Arrays]:
        """The updates that a client's node sends, one entry per request, all trials together.

        Each request is trained once. The run's own `LocalDP.add_noise` then draws the noise of all
        trials in one call, on the clipped update repeated `count` times.

        Returns:
            By request and name, float32 (count, ...).
        """
        add_noise = LocalDP.add_noise
        updates: list[Arrays] = []

        def add_noise_of_all_trials(
            mechanism: LocalDP, total: UpdateSum, *arguments: Any, **more: Any
        ) -> None:
            repeated = {n: np.repeat(v[None], count, axis=0) for n, v in total.tensors.items()}
            trials = replace(total, tensors=repeated)
            add_noise(mechanism, trials, *arguments, **more)
            updates.append({n: v.astype(np.float32) for n, v in trials.tensors.items()})
            add_noise(mechanism, total, *arguments, **more)

        requests = self.asked(client)
        with patch.object(LocalDP, "add_noise", add_noise_of_all_trials):
            for message in requests:
                app(message, self.tap.contexts[client])
        if len(updates) != len(requests):
            raise AssertionError(f"{len(requests)} requests and {len(updates)} updates")
        return updates

    def reported_items(self, client: int, count: int) -> list[IndexArray]:
        """The items that a client reports under randomized response, one entry per trial."""
        privacy = self.setup.privacy_setup.privacy
        data = self.setup.data.client(client)
        num_items = self.setup.data.num_items
        trials = (NoiseSource(Secret(urandom(32))) for _ in range(count))
        return [
            privacy.training_data(data, num_items, source).train.item.astype(np.int64)
            for source in trials
        ]


def deployed(
    folder: Path,
    clients: Holdings,
    num_items: int,
    words: Iterable[str],
    meddle: Meddle = lambda _, replies: replies,
) -> Deployed:
    """Run a strategy over nodes of one client each; noise comes from the operating system.

    Args:
        folder: for the run and the data.
        clients: the items of each user of each client.
        num_items: size of the catalogue.
        words: as on the command line.
        meddle: may change the replies before the server sees them; the attacker sees them before.
            If it raises a KeyboardInterrupt, the run resumes from its last checkpoint.
    """
    config, _, _ = compose_deployment([*TINY[1:], *words])
    data = prepared(folder, clients, num_items)
    own = {"prepared": str(data.path), "store": str(folder / "nodes")}
    tap, grid = Tap(len(clients), meddle, own), InProcessGrid(app, len(clients), own)
    place, watcher = RunFolder.create(folder / "run"), Watcher()
    while True:
        with patch.object(experiment, "prepare_data", lambda _: data):
            setup = experiment.set_up(config, place, grid)
        # A resumed run has the same client state.
        plan = replace(setup.plan, job=replace(setup.plan.job, run="one"))
        server = replace(setup, plan=plan).server(config, [watcher])
        setup.privacy_setup.check(server.strategy)
        for checkpoint in watcher.checkpoints[-1:]:
            server.resume(checkpoint)
        try:
            initial = setup.initial(server.strategy)
            outcome = federate(tap, server, initial, folder / "flower.log")
        except KeyboardInterrupt:
            continue
        return Deployed(setup, tap, outcome.privacy)


def killed_once() -> Meddle:
    """Kill the server in its second round, when it and the attacker have the replies."""
    seen: list[bool] = []

    def kill(asked: list[Message], replies: list[Message]) -> list[Message]:
        config: Any = asked[0].content.config_records["config"]
        training = asked[0].metadata.message_type == "train"
        if training and config["round"] == 2 and not seen:
            seen.append(True)
            raise KeyboardInterrupt
        return replies

    return kill


def everything(reply: Message) -> dict[str, float]:
    """All that a reply holds, each number under a name of its own; texts as checksums."""
    content, found = reply.content, dict[str, float]()
    for record, arrays in content.array_records.items():
        for name, array in arrays.items():
            for place, value in enumerate(array.numpy().ravel().tolist()):
                found[f"{record}/{name}/{place}"] = value
    records: list[tuple[str, Any]] = [
        *content.metric_records.items(),
        *content.config_records.items(),
    ]
    for record, fields in records:
        for name, value in fields.items():
            number = isinstance(value, int | float)
            found[f"{record}/{name}"] = (
                float(value) if number else float(crc32(repr(value).encode()))
            )
    return found | {"has_error": float(reply.has_error())}


def scores(trials: Sequence[Sequence[Message]], aimed: Callable[[pd.DataFrame], Any]) -> Floats:
    """The scores of an attacker, one row per trial.

    Args:
        trials: the messages of each trial; every trial has equally many.
        aimed: the score of a message that best separates the two data sets, from a table with a
            row per message.

    Returns:
        The sum over the messages of the aimed score and of every number, then how each differs
        between the first and the last message.
    """
    count = len(trials[0])
    table = pd.DataFrame([everything(message) for own in trials for message in own])
    table.insert(0, "aimed", aimed(table))
    values = table.to_numpy(np.float64).reshape(len(trials), count, -1)
    return np.concatenate([values.sum(axis=1), values[:, -1] - values[:, 0]], axis=1)


def by_bias(table: pd.DataFrame) -> Any:
    """How much more the first item gained than the second; one of them is the user's own."""
    gains = [table[f"update/item_bias.weight/{place}"] for place in (0, 1)]
    return gains[0] - gains[1]


def by_answers(table: pd.DataFrame) -> Any:
    """The reported items of the first half of the catalogue minus those of the second."""
    told = table.filter(like="update/").filter(regex=r"/\d+$")
    half = told.shape[1] // 2
    return told.iloc[:, :half].sum(axis=1) - told.iloc[:, half:].sum(axis=1)


@dataclass(frozen=True, slots=True)
class Released:
    """The trusted server of a run at work again: its nodes' replies, its own cohorts and noise.

    Attributes:
        ran: the run. Its first client is attacked, and its last has no data.
        replies: the content of each client's first message.
    """

    ran: Deployed
    replies: list[TrainReply]

    @classmethod
    def by(cls, ran: Deployed) -> "Released":
        """The server of a run."""
        asked = [(ran.asked(client)[0], context) for client, context in enumerate(ran.tap.contexts)]
        return cls(
            ran,
            [TrainReply.from_record(app(message, context).content) for message, context in asked],
        )

    def trials(self, count: int, *, present: bool) -> Floats:
        """The releases of the run in independent trials, one row per trial.

        With a fixed cohort and bound, the trials differ only in their noise: one call of the
        server's `release` draws it for all trials.

        Args:
            count: number of trials.
            present: whether the first client has its data; if not, it has no data.

        Returns:
            The sums over the rounds of the log-likelihood ratio, of the projection on the update
            of the attacked client, and of every other number that is released.
        """
        replies = self.replies if present else [self.replies[-1], *self.replies[1:]]
        privacy: Any = self.ran.setup.privacy_setup.privacy
        if privacy.sampling == "fixed" and not privacy.adaptive_clipping:
            return self._all_trials(replies, count)
        return np.array([self._trial(replies) for _ in range(count)])

    def _all_trials(self, replies: list[TrainReply], count: int) -> Floats:
        privacy_setup, plan = self.ran.setup.privacy_setup, self.ran.setup.plan
        server = privacy_setup.privacy.server_mechanism(privacy_setup.run, NoiseSource(None))
        rows = np.zeros((count, 5))
        for round_ in range(1, plan.num_rounds + 1):
            std = max(server.noise_std, 1e-30)
            cohort = server.cohort(np.arange(plan.num_clients), round_)
            total = update_sum([replies[client] for client in cohort.tolist()])
            repeated = {n: np.broadcast_to(v, (count, *v.shape)) for n, v in total.tensors.items()}
            shapes = {name: (count, *shape) for name, shape in self._shapes.items()}
            out = server.release(replace(total, tensors=repeated), shapes, round_)
            along = np.zeros(count)
            size = 0.0
            for name, value in out.tensors.items():
                added = self._added(name)
                along += (value * added).reshape(count, -1).sum(axis=1)
                size += float((added**2).sum())
            ratio = (along - size / 2) / std**2
            taken_part = np.log1p(privacy_setup.run.rate * np.expm1(ratio))
            rows[:, 0] += taken_part
            rows[:, 1] += along
            rows[:, 2:] += [out.weight, len(cohort), server.clip_norm]
        return rows

    def _trial(self, replies: list[TrainReply]) -> Floats:
        privacy_setup, plan = self.ran.setup.privacy_setup, self.ran.setup.plan
        curator = privacy_setup.privacy.server_mechanism(privacy_setup.run, NoiseSource(None))
        everyone, row = np.arange(plan.num_clients), np.zeros(5)
        for round_ in range(1, plan.num_rounds + 1):
            std, initial = max(curator.noise_std, 1e-30), curator.clip_norm
            cohort = curator.cohort(everyone, round_)
            total = update_sum([replies[client] for client in cohort.tolist()])
            out = curator.release(total, self._shapes, round_)
            along = sum(float((out.tensors[n] * self._added(n)).sum()) for n in out.tensors)
            size = sum(float((self._added(n) ** 2).sum()) for n in out.tensors)
            ratio = (along - size / 2) / std**2
            if initial != curator.clip_norm:  # Andrew et al. 2021: half a vote on the bound
                settled: Any = privacy_setup.privacy
                share = np.log(initial / curator.clip_norm) / settled.clip_learning_rate
                votes = (
                    share + settled.target_quantile - 0.5
                ) * privacy_setup.run.clients_per_round
                ratio += (votes * self._added(UNCLIPPED)[0] - 0.125) / settled.count_noise**2
            taken_part = np.log1p(privacy_setup.run.rate * np.expm1(ratio))
            row += [taken_part, along, out.weight, len(cohort), curator.clip_norm]
        return row

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        arrays = self.replies[0].arrays
        return {name: value.shape for name, value in arrays.items() if name != ROW_WEIGHT}

    def _added(self, name: str) -> Floats:
        """The attacked client's contribution to a sum."""
        return self.replies[0].arrays[name].astype(np.float64)

"""Privacy audit of a finished run: replays rounds with the run's own code for inference attacks.

A round is replayed on a copy of the clients' personal state, with the run's own client code and
its own privacy mechanism. The run, its tables and its spent privacy budget are not changed.
"""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np

from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import BoolArray, Float64Array, IndexArray, Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns, Prepared
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.experiment.privacy_setup import PrivacySetup
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.client.state_store import share_secret
from fedrec_flower.federation.client.trainers import GradientTrainer
from fedrec_flower.federation.job import NodePlace
from fedrec_flower.federation.results import Outcome
from fedrec_flower.federation.server.loop import Server, local_update_config
from fedrec_flower.federation.server.plan import Plan
from fedrec_flower.federation.server.sampling import sample_clients
from fedrec_flower.models.abilities import BilinearForm, ServerPostprocess, bilinear_form
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.mechanism import ServerMechanism
from fedrec_flower.reports.run_frames import SEEDED_CAVEAT
from fedrec_flower.strategies.base import RoundInfo
from fedrec_flower.threats.base import LOWER_BOUND, Attack, InferenceAttack
from fedrec_flower.threats.observation import (
    AttackedRound,
    AttackedRun,
    Exposure,
    KnownHistories,
    Observation,
    ObservedSum,
    ShadowModel,
)
from fedrec_flower.training.model_versions import Versions

_LOG = logging.getLogger(__name__)


def check_attack(attack: Attack, server: Server, data: Prepared) -> None:
    """Check that an attack is possible on a run.

    Args:
        attack: the attack.
        server: the server before its first round.
        data: the prepared data.

    Raises:
        ConfigError: gives the reason and the fix.
    """
    if not isinstance(attack, InferenceAttack):
        return
    strategy, model, plan = server.strategy, server.model, server.plan
    shapes = {name: model.get_parameter(name).shape for name in model.shared_names()}
    tables = [shapes[name] for name in shapes if name in model.item_rows - model.frozen]
    solved = isinstance(model, ClosedFormRecommender)
    attack.check(
        AttackedRun(
            strategy=type(strategy).__name__,
            model=type(model).__name__,
            shares=strategy.communicates,
            one_model=not (strategy.models_per_client or strategy.sends_extra_tensors),
            num_clients=data.num_clients,
            vectors=any(len(shape) > 1 and shape[1] < data.num_items for shape in tables),
            by_item=bool(model.statistic_names if solved else tables),
            num_strangers=_num_strangers(data),
            num_rounds=plan.num_rounds,
            replayable=_is_replayable(server),
            factors=_factors(model, data) is not None,
            ranks=plan.job.task == "ranking",
            seeded=plan.job.is_seeded,
        )
    )


def _is_replayable(server: Server) -> bool:
    """Whether the rounds of a run can be replayed from its configuration, without its messages."""
    return server.strategy.uses_only_the_sum and server.plan.job.faults["name"] == "none"


def _factors(model: Recommender, data: Prepared) -> BilinearForm | None:
    """The model's bilinear form, if each client is one user and sends item vectors and biases."""
    factors = bilinear_form(model)
    if factors is None or factors.weight or data.num_users != data.num_clients:
        return None
    trained = {*model.shared_names()} - model.frozen
    return factors if {factors.item, factors.item_bias} <= trained else None


def _num_strangers(data: Prepared) -> int:
    """The number of users with held-out interactions and without training interactions."""
    train, *held_out = (np.diff(data.part(part).offsets) for part in Part)
    return int(((train == 0) & (sum(held_out) > 0)).sum())


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A finished run; implements `threats.observation.AttackTarget`.

    Attributes:
        data: the prepared data.
        privacy_setup: the privacy mechanism and the facts of the run.
        server: the server, after its last round.
        outcome: result of the run.
        initial: the initial shared parameters.
        store: folder of the clients' personal state.
        shadow: trains shadow federations; see `AttackTarget.shadow`.
    """

    data: Prepared
    privacy_setup: PrivacySetup
    server: Server
    outcome: Outcome
    initial: Tensors
    store: Path
    shadow: Callable[[int, KnownHistories, BoolArray], ShadowModel]

    @property
    def shared(self) -> Observation:
        """The shared parameters that the run publishes."""
        return {n: v.astype(np.float64) for n, v in self.outcome.selected.parameters.items()}

    @property
    def participated(self) -> IndexArray:
        """int64 (num_clients,): number of rounds for which each client was sampled."""
        return self.outcome.rounds_participated

    @property
    def seeded(self) -> bool:
        """Whether the clients' draws are derived from the seed, which the server has."""
        return self.server.plan.job.is_seeded

    @property
    def factors(self) -> BilinearForm | None:
        """The bilinear form of the scores, if clients' vectors can be solved for."""
        plan = self.server.plan
        solvable = plan.job.task == "ranking" and _is_replayable(self.server)
        return _factors(self.server.model, self.data) if solvable else None

    @contextmanager
    def replay_round(self, at: AttackedRound, *, with_history: bool) -> Iterator["ReplayedRound"]:
        """Replay a round of the run, or train one more round after the last.

        With history, the round after the last is preceded by a replay of all rounds.
        """
        plan = self.server.plan
        selected = self.outcome.selected
        round_ = plan.num_rounds + 1 if at == "last" else at
        curator = self.privacy_setup.server_mechanism()
        global_params = self.initial
        state: Path | None = None
        earlier: list[ObservedSum] = []
        earlier_released: list[ObservedSum] = []
        with TemporaryDirectory(prefix="spied-", dir=self.store) as scratch:
            if at == "last" and not with_history:
                global_params = selected.parameters
                state = self.store / selected.slot
                curator.restore(self.server.curator.state())
            elif round_ > 1:
                state = Path(scratch) / "before" / "current"
                node = self._node(state.parent, None)
                for whole, released, after in self._replay(node, round_ - 1, curator):
                    global_params = after
                    if with_history:
                        earlier.append(whole)
                        earlier_released += [released] if released else []
            # Training changes the personal state, so the two nodes have separate copies.
            alone = self._node(Path(scratch) / "one", state)
            together = self._node(Path(scratch) / "all", state)
            request = _RoundRequest.of(plan, curator, round_, global_params)
            whole, released, _ = request.train(together)
            exposed = _exposed(curator, secure=isinstance(self.server.secure_aggregation, SecAgg))
            yield ReplayedRound(request, exposed, whole, released, earlier, earlier_released, alone)

    def _replay(
        self, node: Node, num_rounds: int, curator: ServerMechanism
    ) -> Iterator[tuple[ObservedSum, ObservedSum | None, Tensors]]:
        """Replay the first rounds; yields the sum, the release and the parameters after each."""
        strategy = self.server.strategy
        model, plan = self.server.model, self.server.plan
        parameters = self.initial
        state = strategy.state()
        strategy.restore({})  # the state of the run is restored after the replay
        for round_ in range(1, num_rounds + 1):
            request = _RoundRequest.of(plan, curator, round_, parameters)
            whole, released, update = request.train(node)
            if update.weight or curator.noisy:
                info = RoundInfo(round_, 0, curator.noise_std, curator.flip_rate)
                moved = strategy.apply_sum(parameters, update, info)
                if isinstance(model, ServerPostprocess):
                    rng = generator(plan.seed, "settle", round_)
                    parameters = model.after_server_step(moved, rng)
                else:
                    parameters = moved
            yield whole, released, parameters
        strategy.restore(state)

    @contextmanager
    def simulator(self) -> Iterator["NodeSimulator | None"]:
        """A simulator of the clients; None if their draws come from a secret."""
        if self.factors is None or not self.server.plan.job.is_seeded:
            yield None
            return
        with TemporaryDirectory(prefix="imitated-", dir=self.store) as scratch:
            node = self._node(Path(scratch) / "all", None)
            if isinstance(node.trainer, GradientTrainer):
                yield NodeSimulator(node, node.trainer, self.factors.user)
            else:
                yield None

    def _node(self, folder: Path, state: Path | None) -> Node:
        """A node that hosts all clients, with a copy of their personal state in a new folder."""
        if state is not None and state.is_dir():
            shutil.copytree(state, folder / "current")
        share_secret(self.store, folder)
        local = local_update_config(self.server.strategy.client_update())
        job = replace(self.server.plan.job, local=local, session=uuid4().hex)
        place = NodePlace(prepared=str(self.data.path), store=str(folder))
        return open_node(job.to_json(), place)


def _exposed(curator: ServerMechanism, *, secure: bool) -> Exposure:
    """The values that the mechanism in force leaves to an attacker."""
    if curator.noisy:
        return "release"
    return "sum" if secure else "update"


@dataclass(frozen=True, slots=True)
class _RoundRequest:
    """The cohort of a round and the parameters that it starts from.

    Attributes:
        cohort: int64 (n,), the sampled clients.
        round: the round.
        global_params: the shared parameters.
        curator: the server side of the privacy mechanism.
    """

    cohort: IndexArray
    round: int
    global_params: Tensors
    curator: ServerMechanism

    @classmethod
    def of(
        cls, plan: Plan, curator: ServerMechanism, round_: int, global_params: Tensors
    ) -> "_RoundRequest":
        """The request of the run in a round."""
        sampled = sample_clients(plan, "cohort", round_, plan.clients_per_round)
        return cls(curator.cohort(sampled, round_), round_, global_params, curator)

    def reply(self, node: Node, clients: list[int]) -> TrainResult:
        """The reply of a node that trains some clients of the cohort."""
        parameters = [self.global_params[name] for name in node.shared_names]
        settings: dict[str, Any] = {"round": self.round, "clip_norm": self.curator.clip_norm}
        return CohortClient(node, clients).train(parameters, settings)

    def train(self, node: Node) -> tuple[ObservedSum, ObservedSum | None, UpdateSum]:
        """The sum over the cohort, its release if noise is added, and the sum that is applied."""
        std = self.curator.noise_std  # of this round: a release may change the bound
        clip_norm = self.curator.clip_norm
        total = _summed(self.reply(node, self.cohort.tolist()))
        whole = ObservedSum(
            round=self.round,
            cohort=self.cohort,
            given=self.global_params,
            seen=total.tensors,
            weight=total.weight,
            clip_norm=clip_norm,
            noise_std=0.0,
        )
        if not self.curator.noisy:
            return whole, None, total
        shapes = {name: value.shape for name, value in total.tensors.items()}
        released = self.curator.release(total, shapes, self.round)
        return whole, replace(whole, seen=released.tensors, noise_std=std), released


@dataclass(frozen=True, slots=True)
class ReplayedRound:
    """A replayed round; implements `threats.observation.TargetRound`.

    Attributes:
        request: the cohort and the parameters that it started from.
        exposed: see `TargetRound.exposed`.
        whole: see `TargetRound.whole`.
        released: see `TargetRound.released`.
        earlier: see `TargetRound.earlier`.
        earlier_released: see `TargetRound.earlier_released`.
        alone: the node that trains single clients for `message`.
    """

    request: _RoundRequest
    exposed: Exposure
    whole: ObservedSum
    released: ObservedSum | None
    earlier: list[ObservedSum]
    earlier_released: list[ObservedSum]
    alone: Node

    @property
    def cohort(self) -> IndexArray:
        """int64 (n,): the sampled clients."""
        return self.request.cohort

    def message(self, client: int) -> Observation | None:
        """The message of one client of the cohort; None if there is none. Call once per client."""
        reply = self.request.reply(self.alone, [client])
        return _summed(reply).tensors if reply.replied else None


@dataclass(frozen=True, slots=True)
class NodeSimulator:
    """A node that trains on guessed histories; implements `threats.observation.ClientSimulator`.

    Attributes:
        node: a node with the seed of the run and without personal parameters of real clients.
        trainer: the trainer of the node.
        user: name of the parameter with the users' vectors.
    """

    node: Node
    trainer: GradientTrainer
    user: str

    def vectors(self, clients: IndexArray) -> Float64Array:
        """float64 (n, d): the simulated clients' current vectors."""
        users = UserBatch.read(self.node.data, clients)
        return self.node.store.read(users)[self.user].astype(np.float64)

    def updates(
        self, played: ObservedSum, histories: Mapping[int, IndexArray], *, keep: bool
    ) -> Updates:
        """The updates that clients would send, after clipping, if these were their histories."""
        trainer = self.trainer
        global_params = Versions.single(played.given)
        members = [self._with_history(client, items) for client, items in histories.items()]
        parts = []
        for trained in trainer.local_trainer.train(
            members, global_params, self.node.store, played.round
        ):
            if keep:
                self.node.store.scatter(trained.cohort, trained.touched, trained.personal)
            sent = trainer.pipeline.mechanism.apply(
                trained.updates, trainer.tables, played.clip_norm
            )
            parts.append(sent)
        return Updates.joined(parts)

    def _with_history(self, client: int, items: IndexArray) -> ClientData:
        """A client with a guessed history; no interaction of the real client is used."""
        real = self.node.data.client(client)
        offsets = np.array([0, len(items)])
        train = Columns(offsets, items.astype(np.int32), np.ones(len(items), np.float32))
        empty = Columns(np.zeros(2, np.int64), np.zeros(0, np.int32), None)
        return replace(real, train=train, validation=empty, test=empty)


def _summed(reply: TrainResult) -> UpdateSum:
    if reply.total is None:
        raise ValueError("the reply contains single updates instead of their sum")
    return reply.total


def run_inference(attack: Attack, target: TrainedRun) -> dict[str, Any]:
    """Run an inference attack on a finished run, and log its result in one sentence.

    Args:
        attack: the attack.
        target: the finished run.

    Returns:
        The entry "attack" of the summary, with a caveat if the clients' draws came from the seed;
        empty if the attack infers nothing.
    """
    if not isinstance(attack, InferenceAttack):
        return {}
    figures = attack.infer(target)
    if not figures:
        return {}
    caveat = {"randomness": SEEDED_CAVEAT} if target.seeded else {}
    _LOG.info("%s", "; ".join([attack.describe(figures), *caveat.values()]))
    return {"attack": figures | LOWER_BOUND | caveat}

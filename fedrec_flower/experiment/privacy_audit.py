"""What a curious onlooker sees of a run, by the run's own code: the scene of `attacks`.

One more round is played after the last one: the nodes' own client code trains on a copy of what
the clients keep, the run's own curator adds its noise. So the run, its tables and what it has
spent of its budget stay as they are.
"""

import json
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
from numpy.typing import NDArray

from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns, Prepared
from fedrec_flower.experiment.privacy_setup import Guard
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.client.state_store import share_secret
from fedrec_flower.federation.client.trainers import GradientTrainer
from fedrec_flower.federation.server.loop import FederatedStrategy
from fedrec_flower.federation.server.plan import Outcome, Plan
from fedrec_flower.federation.server.sampling import sample_clients
from fedrec_flower.models.abilities import BilinearForm, ServerPostprocess, bilinear_form
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.mechanism import Curator
from fedrec_flower.reports.run_frames import SEEDED_CAVEAT
from fedrec_flower.threats.base import LOWER_BOUND, NoAttack
from fedrec_flower.threats.observation import Circumstances, Claims, Moment, Seen, Shadow, Sum, View
from fedrec_flower.training.model_versions import Versions

_LOG = logging.getLogger(__name__)


def check_attack(
    attack: NoAttack, strategy: FederatedStrategy, model: Recommender, data: Prepared
) -> None:
    """Refuse to spy where there is nothing to see.

    Args:
        attack: who spies, if anybody.
        strategy: the server.
        model: the recommender, without users.
        data: the prepared data.

    Raises:
        ConfigError: says why, and what to choose.
    """
    shapes = {name: model.get_parameter(name).shape for name in model.shared_names()}
    tables = [shapes[name] for name in shapes if name in model.item_rows - model.frozen]
    plain = all(
        getattr(type(strategy), way) is getattr(FederatedStrategy, way)
        for way in ("begin", "beside")
    )
    solved = isinstance(model, ClosedFormRecommender)
    attack.check(
        Circumstances(
            strategy=type(strategy).__name__,
            model=type(model).__name__,
            shares=strategy.shares,
            one_model=plain,
            num_clients=data.num_clients,
            vectors=any(len(shape) > 1 and shape[1] < data.num_items for shape in tables),
            by_item=bool(model.statistic_names if solved else tables),
            num_strangers=_num_strangers(data),
            num_rounds=strategy.plan.num_rounds,
            replayable=_is_replayable(strategy),
            factors=_factors(model, data) is not None,
            ranks=strategy.plan.job["task"] == "ranking",
            seeded=strategy.plan.job["randomness"] == "seeded",
        )
    )


def _is_replayable(strategy: FederatedStrategy) -> bool:
    """Whether what a run did follows from its configuration and from nothing on the wire."""
    return strategy.by_sum_alone and strategy.plan.job["faults"]["name"] == "none"


def _factors(model: Recommender, data: Prepared) -> BilinearForm | None:
    """What scores are made of, where each client is one user and sends vectors and biases."""
    found = bilinear_form(model)
    trained = {*model.shared_names()} - model.frozen
    plain = found is not None and {found.item, found.item_bias} <= trained and not found.weight
    return found if plain and data.num_users == data.num_clients else None


def _num_strangers(data: Prepared) -> int:
    train, *held_out = (np.diff(data.part(part).offsets) for part in Part)
    return int(((train == 0) & (sum(held_out) > 0)).sum())


@dataclass(frozen=True, slots=True)
class RunScene:
    """A run that is over; see `attacks.scene.Scene`.

    Attributes:
        data: the prepared data.
        guard: what protected the clients.
        strategy: the server, after its last round.
        outcome: what it gave back.
        initial: the shared parameters it began with.
        store: folder of what the clients keep.
        shadow: see `Scene.shadow`.
    """

    data: Prepared
    guard: Guard
    strategy: FederatedStrategy
    outcome: Outcome
    initial: Tensors
    store: Path
    shadow: Callable[[int, Claims, NDArray[np.bool_]], Shadow]

    @property
    def shared(self) -> Seen:
        """See `Scene.shared`."""
        return {n: v.astype(np.float64) for n, v in self.outcome.selected.parameters.items()}

    @property
    def participated(self) -> NDArray[np.int64]:
        """See `Scene.participated`."""
        return self.outcome.rounds_participated

    @property
    def seeded(self) -> bool:
        """Whether the clients' draws follow from the seed, which the server knows."""
        return bool(self.strategy.plan.job["randomness"] == "seeded")

    @property
    def factors(self) -> BilinearForm | None:
        """See `Scene.factors`."""
        plan = self.strategy.plan
        solvable = plan.job["task"] == "ranking" and _is_replayable(self.strategy)
        return _factors(plan.model, self.data) if solvable else None

    @contextmanager
    def another_round(self, at: Moment, *, remember: bool) -> Iterator["PlayedRound"]:
        """See `Scene.another_round`; with `remember` the round after the last follows a replay."""
        plan, selected = self.strategy.plan, self.outcome.selected
        round_ = plan.num_rounds + 1 if at == "last" else at
        curator, given, kept = self.guard.curator(), self.initial, None
        earlier: list[Sum] = []
        earlier_released: list[Sum] = []
        with TemporaryDirectory(prefix="spied-", dir=self.store) as scratch:
            if at == "last" and not remember:
                given, kept = selected.parameters, self.store / selected.slot
                curator.restore(plan.curator.state())
            elif round_ > 1:
                kept = Path(scratch) / "before" / "current"
                node = self._node(kept.parent, None)
                for whole, released, moved in self._replay(node, round_ - 1, curator):
                    given = moved
                    if remember:
                        earlier.append(whole)
                        earlier_released += [released] if released else []
            # Who trains keeps what it learnt: alone and with the others each begins afresh.
            alone, together = (self._node(Path(scratch) / way, kept) for way in ("one", "all"))
            asked = _Asked.of(plan, curator, round_, given)
            whole, released = asked.played(together)[:2]
            exposed = _exposed(curator, secure=isinstance(plan.secure, SecAgg))
            yield PlayedRound(asked, exposed, whole, released, earlier, earlier_released, alone)

    def _replay(
        self, node: Node, num_rounds: int, curator: Curator
    ) -> Iterator[tuple[Sum, Sum | None, Tensors]]:
        """The run's rounds again: of each the sum, the release, and the parameters after it."""
        strategy, parameters = self.strategy, self.initial
        plan, state = strategy.plan, strategy.state()
        strategy.restore({})  # begins as the run began; what it knew is put back
        for round_ in range(1, num_rounds + 1):
            asked = _Asked.of(plan, curator, round_, parameters)
            whole, released, update = asked.played(node)
            if update.weight or curator.noisy:
                moved = strategy.move(parameters, update)
                if isinstance(plan.model, ServerPostprocess):
                    rng = generator(plan.seed, "settle", round_)
                    parameters = plan.model.after_server_step(moved, rng)
                else:
                    parameters = moved
            yield whole, released, parameters
        strategy.restore(state)

    @contextmanager
    def imitation(self) -> Iterator["NodeImitation | None"]:
        """See `Scene.imitation`."""
        if self.factors is None or self.strategy.plan.job["randomness"] != "seeded":
            yield None
            return
        with TemporaryDirectory(prefix="imitated-", dir=self.store) as scratch:
            node = self._node(Path(scratch) / "all", None)
            if isinstance(node.trainer, GradientTrainer):
                yield NodeImitation(node, node.trainer, self.factors.user)
            else:
                yield None

    def _node(self, folder: Path, kept: Path | None) -> Node:
        if kept is not None and kept.is_dir():
            shutil.copytree(kept, folder / "current")
        share_secret(self.store, folder)
        plan = self.strategy.plan
        about = {"shares": True, "stacked": False, "local": self.strategy.local()}
        place = {"store": str(folder), "session": uuid4().hex}
        return open_node(json.dumps({**plan.job, **plan.place, **about, **place}))


def _exposed(curator: Curator, *, secure: bool) -> View:
    if curator.noisy:
        return "release"
    return "sum" if secure else "update"


@dataclass(frozen=True, slots=True)
class _Asked:
    """A cohort and what it is given.

    Attributes:
        cohort: int64 (n,), whom the server asks.
        round: the round.
        given: the shared parameters.
        curator: the server's side of privacy.
    """

    cohort: NDArray[np.int64]
    round: int
    given: Tensors
    curator: Curator

    @classmethod
    def of(cls, plan: Plan, curator: Curator, round_: int, given: Tensors) -> "_Asked":
        """The cohort that the run would ask in a round."""
        sampled = sample_clients(plan, "cohort", round_, plan.clients_per_round)
        return cls(curator.cohort(sampled, round_), round_, given, curator)

    def answer(self, node: Node, clients: list[int]) -> TrainResult:
        """What a node says of some of the cohort."""
        given = [self.given[name] for name in node.shared_names]
        about: dict[str, Any] = {"round": self.round, "clip_norm": self.curator.clip_norm}
        return CohortClient(node, clients).train(given, about)

    def played(self, node: Node) -> tuple[Sum, Sum | None, UpdateSum]:
        """The sum over the cohort, what is released of it, and what the server moves by."""
        clip_norm, std = self.curator.clip_norm, self.curator.noise_std
        total = _summed(self.answer(node, self.cohort.tolist()))
        whole = Sum(
            self.round, self.cohort, self.given, total.tensors, total.weight, clip_norm, 0.0
        )
        if not self.curator.noisy:
            return whole, None, total
        shapes = {name: value.shape for name, value in total.tensors.items()}
        released = self.curator.release(total, shapes, self.round)
        return whole, replace(whole, seen=released.tensors, noise_std=std), released


@dataclass(frozen=True, slots=True)
class PlayedRound:
    """A round played again, or one more; see `attacks.scene.Round`.

    Attributes:
        asked: the cohort and what it is given.
        exposed: see `Round.exposed`.
        whole: see `Round.whole`.
        released: see `Round.released`.
        earlier: see `Round.earlier`.
        earlier_released: see `Round.earlier_released`.
        alone: where clients train of whom single messages are wanted.
    """

    asked: _Asked
    exposed: View
    whole: Sum
    released: Sum | None
    earlier: list[Sum]
    earlier_released: list[Sum]
    alone: Node

    @property
    def cohort(self) -> NDArray[np.int64]:
        """See `Round.cohort`."""
        return self.asked.cohort

    def message(self, client: int) -> Seen | None:
        """See `Round.message`."""
        answer = self.asked.answer(self.alone, [client])
        return _summed(answer).tensors if answer.replied else None


@dataclass(frozen=True, slots=True)
class NodeImitation:
    """A node of the run's code that is fed with guesses; see `attacks.scene.Imitation`.

    Attributes:
        node: with the seed of the run and no personal parameters of anybody.
        trainer: of the node.
        user: name of the users' vectors.
    """

    node: Node
    trainer: GradientTrainer
    user: str

    def vectors(self, clients: NDArray[np.int64]) -> NDArray[np.float64]:
        """See `Imitation.vectors`."""
        everyone = self.node.data.client(0, self.node.data.num_clients)
        return self.node.store.load(everyone)[self.user][clients].astype(np.float64)

    def updates(
        self, played: Sum, histories: Mapping[int, NDArray[np.int64]], *, keep: bool
    ) -> Updates:
        """See `Imitation.updates`."""
        trainer, given = self.trainer, Versions.single(played.given)
        members = [self._supposed(client, items) for client, items in histories.items()]
        parts = []
        for trained in trainer.engine.train(members, given, self.node.store, played.round):
            if keep:
                self.node.store.scatter(trained.cohort, trained.touched, trained.personal)
            tables, bound = trainer.tables, played.clip_norm
            parts.append(trainer.pipeline.mechanism.apply(trained.updates, tables, bound))
        return Updates.joined(parts)

    def _supposed(self, client: int, items: NDArray[np.int64]) -> ClientData:
        """A client with a history that was made up; of the real one only its place is used."""
        place = self.node.data.client(client)
        offsets = np.array([0, len(items)])
        train = Columns(offsets, items.astype(np.int32), np.ones(len(items), np.float32))
        nothing = Columns(np.zeros(2, np.int64), np.zeros(0, np.int32), None)
        return replace(place, train=train, validation=nothing, test=nothing)


def _summed(answer: TrainResult) -> UpdateSum:
    if answer.total is None:
        raise ValueError("updates were stacked, though their sum was asked for")
    return answer.total


def spy(attack: NoAttack, scene: RunScene) -> dict[str, Any]:
    """Let the attack look at a run, and log in one sentence what it found: a lower bound.

    Args:
        attack: who spies, if anybody.
        scene: the run that is over.

    Returns:
        The entry "attack" of the summary, with a caveat where clients drew by the seed; nothing
        if nobody spies.
    """
    found = attack.spied(scene)
    if not found:
        return {}
    caveat = {"randomness": SEEDED_CAVEAT} if scene.seeded else {}
    _LOG.info("%s", "; ".join([attack.said(found), *caveat.values()]))
    return {"attack": found | LOWER_BOUND | caveat}

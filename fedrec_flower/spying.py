"""What a curious onlooker sees of a run, by the run's own code: the scene of `attacks`.

One more round is played after the last one: the nodes' own client code trains on a copy of what
the clients keep, the run's own curator adds its noise. So the run, its tables and what it has
spent of its budget stay as they are.
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import UpdateSum
from fedrec_flower.attacks import LOWER_BOUND, NoAttack
from fedrec_flower.attacks.scene import Circumstances, Claims, Moment, Seen, Shadow, View
from fedrec_flower.client.answer import Answer
from fedrec_flower.client.cohort_client import CohortClient
from fedrec_flower.client.node import Node, open_node
from fedrec_flower.client.store import share_secret
from fedrec_flower.frames import TRAPDOOR
from fedrec_flower.guarding import Guard
from fedrec_flower.interactions import Part
from fedrec_flower.models import Recommender
from fedrec_flower.models.base import Tensors
from fedrec_flower.models.exact import ExactRecommender
from fedrec_flower.prepared import Prepared
from fedrec_flower.privacy import Curator
from fedrec_flower.secure_aggregation import SecAgg
from fedrec_flower.strategies import FederatedStrategy, Outcome
from fedrec_flower.strategies.sampling import sample_clients

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
    solved = isinstance(model, ExactRecommender)
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
        )
    )


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
        """Whether the clients' draws follow from the seed, which no attack here makes use of."""
        return bool(self.strategy.plan.job["randomness"] == "seeded")

    @contextmanager
    def another_round(self, at: Moment) -> Iterator["PlayedRound"]:
        """See `Scene.another_round`."""
        plan, selected = self.strategy.plan, self.outcome.selected
        round_, given, curator = 1, self.initial, self.guard.curator()
        kept: Path | None = None
        if at == "final":
            round_, given = plan.num_rounds + 1, selected.parameters
            curator.restore(plan.curator.state())
            kept = self.store / selected.slot
        size = plan.clients_per_round
        cohort = curator.cohort(sample_clients(plan, "cohort", round_, size), round_)
        with TemporaryDirectory(prefix="spied-", dir=self.store) as scratch:
            # Who trains keeps what it learnt: alone and with the others each begins afresh.
            alone, together = (self._node(Path(scratch) / way, kept) for way in ("one", "all"))
            secure = isinstance(plan.secure, SecAgg)
            yield PlayedRound(cohort, round_, given, curator, alone, together, secure)

    def _node(self, folder: Path, kept: Path | None) -> Node:
        if kept is not None and kept.is_dir():
            shutil.copytree(kept, folder / "current")
        share_secret(self.store, folder)
        about = {"shares": True, "stacked": False, "local": self.strategy.local()}
        place = {"store": str(folder), "run": uuid4().hex}
        return open_node(json.dumps({**self.strategy.plan.job, **about, **place}))


@dataclass(frozen=True, slots=True)
class PlayedRound:
    """One more round; see `attacks.scene.Round`.

    Attributes:
        cohort: int64 (n,), whom the server asks.
        round: its number.
        given: the shared parameters.
        curator: the server's side of privacy.
        alone: where clients train of whom single messages are wanted.
        together: where the cohort trains.
        secure: whether aggregation is.
    """

    cohort: NDArray[np.int64]
    round: int
    given: Tensors
    curator: Curator
    alone: Node
    together: Node
    secure: bool

    @property
    def exposed(self) -> View:
        """See `Round.exposed`."""
        if self.curator.noisy:
            return "release"
        return "sum" if self.secure else "update"

    def message(self, client: int) -> Seen | None:
        """See `Round.message`."""
        answer = self._answer(self.alone, [client])
        return _summed(answer).tensors if answer.replied else None

    def total(self) -> Seen:
        """See `Round.total`."""
        return _summed(self._answer(self.together, self.cohort.tolist())).tensors

    def released(self, total: Seen) -> Seen | None:
        """See `Round.released`."""
        if not self.curator.noisy:
            return None
        shapes = {name: value.shape for name, value in total.items()}
        whole = UpdateSum(dict(total), float(len(self.cohort)), np.zeros(0))
        return self.curator.release(whole, shapes, self.round).tensors

    def _answer(self, node: Node, clients: list[int]) -> Answer:
        given = [self.given[name] for name in node.shared_names]
        about: dict[str, Any] = {"round": self.round, "clip_norm": self.curator.clip_norm}
        return CohortClient(node, clients).train(given, about)


def _summed(answer: Answer) -> UpdateSum:
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
    caveat = {"randomness": TRAPDOOR} if scene.seeded else {}
    _LOG.info("%s", "; ".join([attack.said(found), *caveat.values()]))
    return {"attack": found | LOWER_BOUND | caveat}

"""What an attacker of a run has to look at: a run that is over, and its rounds played again."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.data.prepared import Columns, Prepared
from fedrec_flower.models.abilities import BilinearForm

Seen = Mapping[str, NDArray[np.float64]]  # tensor name -> what was sent or released of it
Claims = Columns  # the history of each user that an attacker has
Moment = int | Literal["last"]  # a round of the run, or one more after its last round
View = Literal["update", "sum", "release", "sums", "releases"]


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The run that is spied on, before its first round.

    Attributes:
        strategy: its name, for messages.
        model: its name, for messages.
        shares: whether anything travels between clients.
        one_model: whether clients are given the shared parameters, the same for all, and no more.
        num_clients: clients of the federation.
        vectors: whether trained vectors of items are among the shared parameters.
        by_item: whether what clients send tells items apart.
        num_strangers: users without an interaction in training, and with some elsewhere.
        num_rounds: rounds of training.
        replayable: whether the run's rounds can be played again without its messages.
        factors: whether each client is one user, and scores are products with its vector.
        ranks: whether the task is to rank.
        seeded: whether clients' draws follow from the seed that the server knows.
    """

    strategy: str
    model: str
    shares: bool
    one_model: bool
    num_clients: int
    vectors: bool
    by_item: bool
    num_strangers: int
    num_rounds: int
    replayable: bool
    factors: bool
    ranks: bool
    seeded: bool


@dataclass(frozen=True, slots=True)
class Sum:
    """What a server has of one round under secure aggregation, or what it released of it.

    Attributes:
        round: the round.
        cohort: int64 (n,), the clients behind it, ascending.
        given: the shared parameters that the clients started from.
        seen: the sum over them, weight times change.
        weight: the sum of their weights.
        clip_norm: no change is longer; infinity where none is clipped.
        noise_std: standard deviation of the noise in each value.
    """

    round: int
    cohort: NDArray[np.int64]
    given: Tensors
    seen: Seen
    weight: float
    clip_norm: float
    noise_std: float


class Imitation(Protocol):
    """The clients' code in the hands of a server that knows the seed of their draws.

    It has no data of theirs: it is told what each is supposed to have had.
    """

    def vectors(self, clients: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 (n, d): the clients' vectors, as they are now in the imitation."""
        ...

    def updates(
        self, played: Sum, histories: Mapping[int, NDArray[np.int64]], *, keep: bool
    ) -> Updates:
        """What clients would send, after clipping, if these were their items.

        Args:
            played: the round that they take part in.
            histories: item codes by client, at least one each.
            keep: whether their vectors are changed for later rounds.
        """
        ...


class Round(Protocol):
    """A round of the run played again, or one more after the last."""

    @property
    def earlier(self) -> Sequence[Sum]:
        """The sums of the rounds before it, in their order, if they were asked for."""
        ...

    @property
    def earlier_released(self) -> Sequence[Sum]:
        """What was released of the rounds before it; empty where no noise is added."""
        ...

    @property
    def whole(self) -> Sum:
        """The sum over the cohort: the most that secure aggregation leaves to a server."""
        ...

    @property
    def released(self) -> Sum | None:
        """What the server lets out of the sum, its noise added; None if it adds none."""
        ...

    @property
    def cohort(self) -> NDArray[np.int64]:
        """int64 (n,): whom the server asks."""
        ...

    @property
    def exposed(self) -> View:
        """What the mechanism in force leaves to those it protects from."""
        ...

    def message(self, client: int) -> Seen | None:
        """What one client of the cohort sends; None if nothing arrives. Ask once per client."""
        ...


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a shadow federation published.

    Attributes:
        shared: the shared parameters.
        trained: bool (num_users,), who trained.
    """

    shared: Seen
    trained: NDArray[np.bool_]


class Scene(Protocol):
    """A run that is over."""

    @property
    def data(self) -> Prepared:
        """The prepared data: the truth, by which guesses are judged."""
        ...

    @property
    def shared(self) -> Seen:
        """The shared parameters that the run publishes."""
        ...

    @property
    def participated(self) -> NDArray[np.int64]:
        """int64 (num_clients,): how often each client was asked."""
        ...

    @property
    def factors(self) -> BilinearForm | None:
        """What scores are made of, where clients' vectors can be solved for; None elsewhere.

        Each client is one user whose vector stays with it, the task is to rank, and the rounds of
        the run can be played again.
        """
        ...

    def another_round(self, at: Moment, *, remember: bool) -> AbstractContextManager[Round]:
        """Play a round of the run again, or one more from the published parameters.

        Args:
            at: which round.
            remember: whether the sums of the rounds before it are wanted.
        """
        ...

    def imitation(self) -> AbstractContextManager[Imitation | None]:
        """The clients' code with their draws; None where these follow from a secret."""
        ...

    def shadow(self, number: int, claims: Claims, inside: NDArray[np.bool_]) -> Shadow:
        """Train a federation like the run's own on other users; or read it if it is kept.

        Args:
            number: from zero; decides its seed.
            claims: the histories of all users.
            inside: bool (num_users,), whose histories are training data; those of all others are
                held out.
        """
        ...

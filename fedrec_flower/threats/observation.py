"""Observations of an inference attacker: a finished run and its replayed rounds."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from fedrec_flower.core.types import BoolArray, Float64Array, IndexArray, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import Columns, Prepared
from fedrec_flower.models.abilities import BilinearForm

Observation = Mapping[str, Float64Array]  # sent or released tensors, by name
KnownHistories = Columns  # the users' histories that an attacker has
AttackedRound = int | Literal["last"]  # a round of the run, or one more after its last round
Exposure = Literal["update", "sum", "release", "sums", "releases"]


@dataclass(frozen=True, slots=True)
class AttackedRun:
    """Facts of the attacked run, before its first round.

    Attributes:
        strategy: name of the strategy, for messages.
        model: name of the model, for messages.
        shares: whether clients share parameters through the server.
        one_model: whether all clients receive the same shared parameters and no other tensors.
        num_clients: number of clients of the federation.
        vectors: whether trained item vectors are among the shared parameters.
        by_item: whether clients' messages have values for each item.
        num_strangers: number of users with held-out interactions and without training ones.
        num_rounds: number of training rounds.
        replayable: whether the run's rounds can be replayed without its messages.
        factors: whether each client is one user, and scores are products with its vector.
        ranks: whether the task is ranking.
        seeded: whether clients' draws are derived from the seed that the server has.
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
class ObservedSum:
    """The sum of one round, which a server has under secure aggregation, or its noisy release.

    Attributes:
        round: the round.
        cohort: int64 (n,), the clients in the sum, ascending.
        given: the shared parameters that the clients started from.
        seen: the sum over the clients of weight * update.
        weight: the sum of the clients' weights.
        clip_norm: largest norm of an update; infinity without clipping.
        noise_std: standard deviation of the noise in each value.
    """

    round: int
    cohort: IndexArray
    given: Tensors
    seen: Observation
    weight: float
    clip_norm: float
    noise_std: float


class ClientSimulator(Protocol):
    """A simulator of the clients, run by a server that has the seed of their draws.

    It has no data of real clients: it trains on guessed histories.
    """

    def vectors(self, clients: IndexArray) -> Float64Array:
        """float64 (n, d): the simulated clients' current vectors."""
        ...

    def updates(
        self, played: ObservedSum, histories: Mapping[int, IndexArray], *, keep: bool
    ) -> Updates:
        """The updates that clients would send, after clipping, if these were their histories.

        Args:
            played: the sum of the round that the clients take part in.
            histories: item codes by client, at least one each.
            keep: whether the clients' vectors are changed for later rounds.
        """
        ...


class TargetRound(Protocol):
    """A replayed round of the run, or one more round after the last."""

    @property
    def earlier(self) -> Sequence[ObservedSum]:
        """The sums of the earlier rounds, in order, if they were requested."""
        ...

    @property
    def earlier_released(self) -> Sequence[ObservedSum]:
        """The noisy releases of the earlier rounds; empty if no noise is added."""
        ...

    @property
    def whole(self) -> ObservedSum:
        """The sum over the cohort: the only value that a server has under secure aggregation."""
        ...

    @property
    def released(self) -> ObservedSum | None:
        """The sum with the server's noise; None if the server adds no noise."""
        ...

    @property
    def cohort(self) -> IndexArray:
        """int64 (n,): the sampled clients."""
        ...

    @property
    def exposed(self) -> Exposure:
        """The values that an attacker can observe under the mechanism in force."""
        ...

    def message(self, client: int) -> Observation | None:
        """The message of one client of the cohort; None if there is none. Call once per client."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowModel:
    """The published model of a shadow federation.

    Attributes:
        shared: the shared parameters.
        trained: bool (num_users,), true for users that trained.
    """

    shared: Observation
    trained: BoolArray


class AttackTarget(Protocol):
    """A finished run under attack."""

    @property
    def data(self) -> Prepared:
        """The prepared data, which are the ground truth for guesses."""
        ...

    @property
    def shared(self) -> Observation:
        """The shared parameters that the run publishes."""
        ...

    @property
    def participated(self) -> IndexArray:
        """int64 (num_clients,): number of rounds for which each client was sampled."""
        ...

    @property
    def factors(self) -> BilinearForm | None:
        """The bilinear form of the scores, if clients' vectors can be solved for; else None.

        This requires that each client is one user with a personal vector, that the task is
        ranking, and that the rounds of the run can be replayed.
        """
        ...

    def replay_round(
        self, at: AttackedRound, *, with_history: bool
    ) -> AbstractContextManager[TargetRound]:
        """Replay a round of the run, or train one more from the published parameters.

        Args:
            at: the round.
            with_history: whether the sums of the earlier rounds are needed.
        """
        ...

    def simulator(self) -> AbstractContextManager[ClientSimulator | None]:
        """A simulator of the clients with their draws; None if these come from a secret."""
        ...

    def shadow(self, number: int, claims: KnownHistories, inside: BoolArray) -> ShadowModel:
        """Train a shadow federation with the run's configuration, or load it from the cache.

        Args:
            number: index from zero; determines the seed.
            claims: the histories of all users.
            inside: bool (num_users,), true for users whose histories are training data; all other
                histories are held out.
        """
        ...

"""What a curious onlooker has before him: a run that is over, and a round played once more."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.prepared import Columns, Prepared

Seen = Mapping[str, NDArray[np.float64]]  # tensor name -> what was sent or released of it
Claims = Columns  # the history of each user that an attacker has
Moment = Literal["initial", "final"]
View = Literal["update", "sum", "release"]


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
    """

    strategy: str
    model: str
    shares: bool
    one_model: bool
    num_clients: int
    vectors: bool
    by_item: bool
    num_strangers: int


class Round(Protocol):
    """One more round, as the run would have played it."""

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

    def total(self) -> Seen:
        """The sum over the cohort: the most that secure aggregation leaves to a server."""
        ...

    def released(self, total: Seen) -> Seen | None:
        """What the server lets out of the sum, its noise added; None if it adds none."""
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

    def another_round(self, at: Moment) -> AbstractContextManager[Round]:
        """Play one more round, from the initial or from the published parameters."""
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

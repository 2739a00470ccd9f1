"""No protection beyond the data staying where they are, and the shape of every other mechanism.

The server's side of privacy: whom to ask, what to release, what that has cost.
"""

from collections.abc import Collection, Mapping
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.noise import Chance
from fedrec_flower.privacy.requirements import Circumstances, Way

State = dict[str, NDArray[Any]]


class Curator:
    """Of `privacy=none`: releases the sum as it is, and promises nothing."""

    @property
    def noisy(self) -> bool:
        """Whether a release hides even that nobody took part, so that none may be left out."""
        return False

    @property
    def hides_losses(self) -> bool:
        """Whether nodes keep training losses to themselves, which no mechanism here protects."""
        return False

    @property
    def beside(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what travels beside an update."""
        return {}

    @property
    def is_spent(self) -> bool:
        """Whether another release would cost more than the budget allows."""
        return False

    @property
    def clip_norm(self) -> float:
        """What clients are told to bound their updates by in this round."""
        return inf

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in each value of a released sum."""
        return 0.0

    @property
    def flip_rate(self) -> float:
        """The probability that a user's answer about an item was flipped."""
        return 0.0

    def cohort(self, sampled: NDArray[np.int64], round_: int) -> NDArray[np.int64]:
        """Whom to ask: the clients sampled, a fixed number of them, or others.

        Args:
            sampled: int64 (clients_per_round,), ascending client codes.
            round_: the round.
        """
        del round_
        return sampled

    def check_masked(self, num_groups: int, num_clients: int, least: int) -> None:
        """Refuse masks of which the cohort decides whether they let a sum out.

        Args:
            num_groups: groups of nodes whose sampled clients are counted.
            num_clients: clients that the nodes of a group host at least.
            least: sampled clients of a group; of fewer, no sum comes out.

        Raises:
            ConfigError: names the values and the mend.
        """
        del num_groups, num_clients, least

    def release(
        self, total: UpdateSum, shapes: Mapping[str, tuple[int, ...]], round_: int
    ) -> UpdateSum:
        """What may be used of the sum over a cohort; everything else follows from it.

        Args:
            total: the sum; without tensors if nobody took part. Left as it is.
            shapes: of every tensor that a client sends.
            round_: the round.
        """
        del shapes, round_
        return total

    def figures(self) -> dict[str, float]:
        """What rounds.csv says of the round just released."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What summary.json says of the run."""
        return {}

    def state(self) -> State:
        """What must survive an interruption, for a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take up what `state` gave."""
        del state


class NoPrivacy:
    """The identity: what a client learned travels as it is."""

    @property
    def draws(self) -> bool:
        """Whether anything of it is random."""
        return False

    @property
    def guarantees(self) -> bool:
        """Whether it promises anything: then a node sends nothing that the promise leaves out.

        No loss, no weight but a constant, and no client that is lost because of its data.
        """
        return False

    @property
    def trusts_server(self) -> bool:
        """Whether the server may see more than what it releases."""
        return True

    @property
    def hides_rows(self) -> bool:
        """Whether messages are dense, so that nobody knows how much of what a client touched."""
        return False

    @property
    def answers_all(self) -> bool:
        """Whether `disguise` makes histories as long as the catalogue, to be read in pieces."""
        return False

    @property
    def beside(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what travels beside the update."""
        return {}

    def check(self, run: Circumstances, way: Way) -> None:
        """Refuse a run that the mechanism does not cover; ConfigError with the reason."""
        del run, way

    def most_weight(self, most_examples: int, most_users: int) -> float:
        """The largest weight of what one client sends.

        Args:
            most_examples: training interactions of the client that has most.
            most_users: users whose statistics one client adds up, at most; 1 if it sends an update.
        """
        del most_users
        return float(most_examples)

    def settle(self, run: Circumstances) -> Mapping[str, Any]:
        """Values of the configuration that follow from the run, such as a noise multiplier."""
        del run
        return {}

    def curator(self, run: Circumstances, chance: Chance, ledger: Ledger = NO_LEDGER) -> Curator:
        """The server's side, for one run; it keeps its account in the ledger."""
        del run, chance, ledger
        return Curator()

    def disguise(self, data: ClientData, num_items: int, chance: Chance) -> ClientData:
        """What a client trains on, or makes its statistics of.

        Args:
            data: what the client holds; left unchanged.
            num_items: size of the catalogue.
            chance: where randomness comes from.
        """
        del num_items, chance
        return data

    def apply(self, updates: Updates, tables: Collection[str], clip_norm: float) -> Updates:
        """What the clients send instead of their updates.

        Args:
            updates: the updates; left unchanged.
            tables: names of the parameters with a row per item.
            clip_norm: what the curator told of this round.
        """
        del tables, clip_norm
        return updates

    def add_noise(
        self,
        total: UpdateSum,
        clients: NDArray[np.int64],
        round_: int,
        chance: Chance,
        attempt: int = 0,
    ) -> None:
        """Add each client's own noise to the sum that its update has just been added to.

        In place and over all rows: a dense copy of a table per client would fill the memory, and
        only the sum leaves the node.

        Args:
            total: the sum over the clients of a node so far.
            clients: int64 (num_clients,), who was added.
            round_: the round.
            chance: where randomness comes from.
            attempt: how often the round was tried before.
        """
        del total, clients, round_, chance, attempt

    def user_weights(
        self, model: ClosedFormRecommender, history: Columns, user_offsets: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """What each user's statistics are multiplied by.

        Args:
            model: the recommender.
            history: the users' interactions, as `disguise` left them.
            user_offsets: int64 (num_clients + 1,), where each client's users begin.

        Returns:
            float64 (num_users,), from 0 to 1; None for 1.
        """
        del model, history, user_offsets
        return None

    def statistics_weight(self, history: Columns, num_clients: int) -> float:
        """The weight that the statistics of clients travel with: here their interactions.

        Args:
            history: the users' interactions, as `disguise` left them.
            num_clients: number of clients who hold these users.
        """
        del num_clients
        return float(len(history.offsets) - 1 if self.hides_rows else len(history.item))

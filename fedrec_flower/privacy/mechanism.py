"""Interfaces of privacy mechanisms: the client side and the server side, and no privacy."""

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
    """The server side of `privacy=none`: releases the sum unchanged, without a guarantee."""

    @property
    def noisy(self) -> bool:
        """Whether a release also hides that no client took part, so that none may be skipped."""
        return False

    @property
    def hides_losses(self) -> bool:
        """Whether nodes send no training losses, because no mechanism here protects them."""
        return False

    @property
    def beside(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the extra tensors that are sent with an update."""
        return {}

    @property
    def is_spent(self) -> bool:
        """Whether another release would exceed the budget."""
        return False

    @property
    def clip_norm(self) -> float:
        """The bound of the clients' updates in this round; sent to the clients."""
        return inf

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in each value of a released sum; 0 without noise."""
        return 0.0

    @property
    def flip_rate(self) -> float:
        """The probability that a user's answer about an item was flipped."""
        return 0.0

    def cohort(self, sampled: NDArray[np.int64], round_: int) -> NDArray[np.int64]:
        """The cohort of a round: the sampled clients, or a cohort that the mechanism draws.

        Args:
            sampled: int64 (clients_per_round,), ascending client codes.
            round_: the round.
        """
        del round_
        return sampled

    def check_masked(self, num_groups: int, num_clients: int, least: int) -> None:
        """Check that the sampled cohort does not decide whether secure aggregation gives a sum.

        Args:
            num_groups: number of groups of nodes whose sampled clients are counted.
            num_clients: minimum number of clients that the nodes of a group host.
            least: minimum number of sampled clients of a group; with fewer there is no sum.

        Raises:
            ConfigError: names the values and the fix.
        """
        del num_groups, num_clients, least

    def release(
        self, total: UpdateSum, shapes: Mapping[str, tuple[int, ...]], round_: int
    ) -> UpdateSum:
        """The released sum of a cohort; all later values of the server are computed from it.

        Args:
            total: the sum; without tensors if no client took part. It is not changed.
            shapes: the shape of every tensor that a client sends, by name.
            round_: the round.
        """
        del shapes, round_
        return total

    def figures(self) -> dict[str, float]:
        """Columns of rounds.csv for the round just released."""
        return {}

    def facts(self) -> dict[str, Any]:
        """Entries of summary.json about privacy."""
        return {}

    def state(self) -> State:
        """The state to save in a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `state` returned."""
        del state


class NoPrivacy:
    """The identity: a client sends its update unchanged."""

    @property
    def draws(self) -> bool:
        """Whether the mechanism draws random numbers."""
        return False

    @property
    def guarantees(self) -> bool:
        """Whether the mechanism gives a guarantee.

        A node then sends no value that the guarantee does not cover: no loss, no weight except a
        constant, and it drops no client because of its data.
        """
        return False

    @property
    def trusts_server(self) -> bool:
        """Whether the server may see more than the values that it releases."""
        return True

    @property
    def hides_rows(self) -> bool:
        """Whether messages are dense, so that they do not reveal which rows a client touched."""
        return False

    @property
    def answers_all(self) -> bool:
        """Whether `disguise` makes histories of catalogue length, to be processed in chunks."""
        return False

    @property
    def beside(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the extra tensors that are sent with an update."""
        return {}

    def check(self, run: Circumstances, way: Way) -> None:
        """Check that the mechanism covers a run.

        Args:
            run: facts of the run.
            way: facts of its aggregation.

        Raises:
            ConfigError: gives the reason and the fix.
        """
        del run, way

    def most_weight(self, most_examples: int, most_users: int) -> float:
        """The largest weight of one client's message.

        Args:
            most_examples: the largest number of training interactions of a client.
            most_users: the largest number of users whose statistics one client adds up; 1 if
                clients send updates.
        """
        del most_users
        return float(most_examples)

    def settle(self, run: Circumstances) -> Mapping[str, Any]:
        """Configuration values that depend on the run, such as a noise multiplier."""
        del run
        return {}

    def curator(self, run: Circumstances, chance: Chance, ledger: Ledger = NO_LEDGER) -> Curator:
        """The server side for one run; it stores its account in the ledger."""
        del run, chance, ledger
        return Curator()

    def disguise(self, data: ClientData, num_items: int, chance: Chance) -> ClientData:
        """The data that a client trains on, or computes its statistics from.

        Args:
            data: the client's data; not changed.
            num_items: size of the catalogue.
            chance: source of randomness.
        """
        del num_items, chance
        return data

    def apply(self, updates: Updates, tables: Collection[str], clip_norm: float) -> Updates:
        """The updates that the clients send, for example clipped ones.

        Args:
            updates: the updates; not changed.
            tables: names of the parameters with a row per item.
            clip_norm: the server's bound for this round, in units of the parameters.
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
        """Add the noise of each client to the sum of updates, in place and on all rows.

        The noise is added to the sum because a dense copy of a table per client would fill the
        memory; only the sum leaves the node.

        Args:
            total: the sum over the clients of a node so far.
            clients: int64 (num_clients,), codes of the clients whose updates were just added.
            round_: the round.
            chance: source of randomness.
            attempt: number of earlier attempts of the round.
        """
        del total, clients, round_, chance, attempt

    def user_weights(
        self, model: ClosedFormRecommender, history: Columns, user_offsets: NDArray[np.int64]
    ) -> NDArray[np.float64] | None:
        """The factor of each user's statistics.

        Args:
            model: the recommender.
            history: the users' interactions, as returned by `disguise`.
            user_offsets: int64 (num_clients + 1,), index of each client's first user.

        Returns:
            float64 (num_users,), from 0 to 1; None means 1 for every user.
        """
        del model, history, user_offsets
        return None

    def statistics_weight(self, history: Columns, num_clients: int) -> float:
        """The weight of the clients' statistics: here the number of their interactions.

        Args:
            history: the users' interactions, as returned by `disguise`.
            num_clients: number of clients that hold these users.
        """
        del num_clients
        if self.hides_rows:
            return float(len(history.offsets) - 1)
        return float(len(history.item))

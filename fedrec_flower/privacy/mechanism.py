"""The interface of privacy mechanisms, with a client side and a server side; and no privacy."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from math import inf
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.types import Arrays, Float64Array, IndexArray
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import ClientData, Columns
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.ledger import NO_LEDGER, Ledger
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.requirements import AggregationFacts, RunFacts


class ServerMechanism(ABC):
    """The server side of a privacy mechanism: samples clients, releases sums, counts the cost.

    By default the sampled clients are the cohort and the sum is released unchanged.
    """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Entries of summary.json about privacy: the guarantee, its cost and its exceptions."""

    @property
    def noisy(self) -> bool:
        """Whether a release also hides that no client took part, so that none may be skipped."""
        return False

    @property
    def hides_losses(self) -> bool:
        """Whether nodes send no training losses, because no mechanism here protects them."""
        return False

    @property
    def extra_tensors(self) -> dict[str, tuple[int, ...]]:
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

    def cohort(
        self,
        sampled: IndexArray,
        round_: int,  # noqa: ARG002  # for mechanisms that draw their own cohort
    ) -> IndexArray:
        """The cohort of a round: the sampled clients, or a cohort that the mechanism draws.

        Args:
            sampled: int64 (clients_per_round,), ascending client codes.
            round_: the round.
        """
        return sampled

    def check_secure_aggregation(  # noqa: B027  # optional
        self, num_groups: int, num_clients: int, least: int
    ) -> None:
        """Check that the sampled cohort does not decide whether secure aggregation gives a sum.

        Args:
            num_groups: number of groups of nodes whose sampled clients are counted.
            num_clients: minimum number of clients that the nodes of a group host.
            least: minimum number of sampled clients of a group; with fewer there is no sum.

        Raises:
            ConfigError: names the values and the fix.
        """

    def release(
        self,
        total: UpdateSum,
        shapes: Mapping[str, tuple[int, ...]],  # noqa: ARG002  # for mechanisms with noise
        round_: int,  # noqa: ARG002  # for mechanisms with noise
    ) -> UpdateSum:
        """The released sum of a cohort; all later values of the server are computed from it.

        Args:
            total: the sum; without tensors if no client took part. It is not changed.
            shapes: the shape of every tensor that a client sends, by name.
            round_: the round.
        """
        return total

    def round_metrics(self) -> dict[str, float]:
        """Columns of rounds.csv for the round just released."""
        return {}

    def state(self) -> Arrays:
        """The state to save in a checkpoint."""
        return {}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:  # noqa: B027  # optional
        """Restore the state that `state` returned."""


class NoPrivacyServer(ServerMechanism):
    """The server side of `privacy=none`: releases the sum unchanged, without a guarantee."""

    @override
    def facts(self) -> dict[str, Any]:
        return {}


class PrivacyMechanism(ABC):
    """The client side of a privacy mechanism, applied to each client's data and update.

    A mechanism declares what it draws and guarantees, checks whether it covers a run, and has a
    server side. By default, the hooks change no data, update or sum.
    """

    @property
    @abstractmethod
    def is_random(self) -> bool:
        """Whether the mechanism draws random numbers."""

    @property
    @abstractmethod
    def has_guarantee(self) -> bool:
        """Whether the mechanism gives a guarantee.

        A node then sends no value that the guarantee does not cover: no loss, no weight except a
        constant, and it drops no client because of its data.
        """

    @property
    @abstractmethod
    def trusts_server(self) -> bool:
        """Whether the server may see more than the values that it releases."""

    @property
    def is_identity(self) -> bool:
        """Whether the mechanism changes no data, update or sum."""
        return False

    @property
    def hides_rows(self) -> bool:
        """Whether messages are dense, so that they do not reveal which rows a client touched."""
        return False

    @property
    def has_dense_histories(self) -> bool:
        """Whether `training_data` makes histories of catalogue length, processed in chunks."""
        return False

    @property
    def extra_tensors(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the extra tensors that are sent with an update."""
        return {}

    @abstractmethod
    def check(self, run: RunFacts, aggregation: AggregationFacts) -> None:
        """Check that the mechanism covers a run.

        Args:
            run: facts of the run.
            aggregation: facts of its aggregation.

        Raises:
            ConfigError: gives the reason and the fix.
        """

    @abstractmethod
    def max_weight(self, max_examples: int, max_users: int) -> float:
        """The largest weight of one client's message.

        Args:
            max_examples: the largest number of training interactions of a client.
            max_users: the largest number of users whose statistics one client adds up; 1 if
                clients send updates.
        """

    def resolve(self, run: RunFacts) -> Mapping[str, Any]:  # noqa: ARG002  # optional
        """Configuration values that depend on the run, such as a noise multiplier."""
        return {}

    @abstractmethod
    def server_mechanism(
        self, run: RunFacts, noise_source: NoiseSource, ledger: Ledger = NO_LEDGER
    ) -> ServerMechanism:
        """The server side for one run; it stores its account in the ledger."""

    def training_data(
        self,
        data: ClientData,
        num_items: int,  # noqa: ARG002  # for mechanisms that change histories
        noise_source: NoiseSource,  # noqa: ARG002  # for mechanisms that change histories
    ) -> ClientData:
        """The data that a client trains on, or computes its statistics from.

        Args:
            data: the client's data; not changed.
            num_items: size of the catalogue.
            noise_source: source of randomness.
        """
        return data

    def apply(
        self,
        updates: Updates,
        tables: Collection[str],  # noqa: ARG002  # for mechanisms that clip
        clip_norm: float,  # noqa: ARG002  # for mechanisms that clip
    ) -> Updates:
        """The updates that the clients send, for example clipped ones.

        Args:
            updates: the updates; not changed.
            tables: names of the parameters with a row per item.
            clip_norm: the server's bound for this round, in units of the parameters.
        """
        return updates

    def add_noise(  # noqa: B027  # optional
        self,
        total: UpdateSum,
        clients: IndexArray,
        round_: int,
        noise_source: NoiseSource,
        attempt: int = 0,
    ) -> None:
        """Add the noise of each client to the sum of updates, in place and on all rows.

        The noise is added to the sum because a dense copy of a table per client would fill the
        memory; only the sum leaves the node.

        Args:
            total: the sum over the clients of a node so far.
            clients: int64 (num_clients,), codes of the clients whose updates were just added.
            round_: the round.
            noise_source: source of randomness.
            attempt: number of earlier attempts of the round.
        """

    def user_weights(
        self,
        model: ClosedFormRecommender,  # noqa: ARG002  # for mechanisms that clip statistics
        history: Columns,  # noqa: ARG002  # for mechanisms that clip statistics
        user_offsets: IndexArray,  # noqa: ARG002  # for mechanisms that clip statistics
    ) -> Float64Array | None:
        """The factor of each user's statistics.

        Args:
            model: the recommender.
            history: the users' interactions, as returned by `training_data`.
            user_offsets: int64 (num_clients + 1,), index of each client's first user.

        Returns:
            float64 (num_users,), from 0 to 1; None means 1 for every user.
        """
        return None

    def statistics_weight(
        self,
        history: Columns,
        num_clients: int,  # noqa: ARG002  # for mechanisms with a weight per client
    ) -> float:
        """The weight of the clients' statistics: here the number of their interactions.

        Args:
            history: the users' interactions, as returned by `training_data`.
            num_clients: number of clients that hold these users.
        """
        if self.hides_rows:
            return float(len(history.offsets) - 1)
        return float(len(history.item))


class NoPrivacy(PrivacyMechanism):
    """The identity: a client sends its update unchanged."""

    @property
    @override
    def is_identity(self) -> bool:
        return True

    @property
    @override
    def is_random(self) -> bool:
        return False

    @property
    @override
    def has_guarantee(self) -> bool:
        return False

    @property
    @override
    def trusts_server(self) -> bool:
        return True

    @override
    def check(self, run: RunFacts, aggregation: AggregationFacts) -> None:
        return

    @override
    def max_weight(self, max_examples: int, max_users: int) -> float:
        return float(max_examples)

    @override
    def server_mechanism(
        self, run: RunFacts, noise_source: NoiseSource, ledger: Ledger = NO_LEDGER
    ) -> ServerMechanism:
        return NoPrivacyServer()

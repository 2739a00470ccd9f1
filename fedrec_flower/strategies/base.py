"""The interface of federated algorithms: how the server moves and how clients train.

A strategy is an algorithm. It has no transport, no round loop and no messages; the server
(`federation.server`) calls it with the aggregated updates. A strategy declares its requirements on
the server in class attributes, on which privacy relies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import Arrays, IndexArray, Shapes, Tensors
from fedrec_flower.core.updates import (
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.models.base import Recommender
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate

Aggregation = Literal["all_clients", "touched_clients"]
"""Whether a table row's update is divided by the weight of all clients or of those that touched
the row."""

VERSIONS = "versions"
"""Name of the array int64 (num_clients,) that gives each client's version. Where parameters contain
it, every other array has an axis of versions in front."""


def equal_versions(initial: Tensors, num_versions: int, version_of: IndexArray) -> Tensors:
    """Return parameters in several equal versions.

    Args:
        initial: one version.
        num_versions: number of versions.
        version_of: int64 (num_clients,), the version of each client.
    """
    versions: Arrays = {n: np.repeat(v[None], num_versions, 0) for n, v in initial.items()}
    return versions | {VERSIONS: version_of}


@dataclass(frozen=True, slots=True)
class FederationInfo:
    """The facts of a run that an algorithm may use.

    Attributes:
        seed: the experiment's seed.
        num_clients: clients of the federation.
        num_items: size of the catalogue.
        num_examples: int64 (num_clients,), training interactions of each client; only for
            simulated clocks, because a real server does not know them.
        clients_per_round: size of a cohort.
        item_tables: names of the parameters with a row per item.
        model: the recommender, without users.
        optimizer: the optimiser of local training, such as "sgd".
        learning_rate: the learning rate of local training.
        max_client_weight: the largest weight of one client's contribution.
        flip_rate: the probability that a user's answer about an item is flipped (randomized
            response); 0 without.
    """

    seed: int
    num_clients: int
    num_items: int
    num_examples: NDArray[np.int64]
    clients_per_round: int
    item_tables: frozenset[str]
    model: Recommender
    optimizer: str
    learning_rate: float
    max_client_weight: float
    flip_rate: float


@dataclass(frozen=True, slots=True)
class RoundInfo:
    """The facts of one round that the server passes on with its updates.

    Attributes:
        round: the round, counted from 1.
        num_replied: number of clients whose updates are aggregated; 0 where the strategy declares
            `uses_only_the_sum`, which includes that it does not use this number.
        noise_std: standard deviation of the noise in each value of the sum.
        flip_rate: the probability that a user's answer behind the sum was flipped.
    """

    round: int
    num_replied: int
    noise_std: float = 0.0
    flip_rate: float = 0.0


class FederatedStrategy:
    """Base class of the federated algorithms.

    A subclass overrides `server_step`, or `apply_sum`, or, if it declares
    `needs_individual_updates`, `aggregate` or `apply_updates`.

    Args:
        info: facts of the run.
        aggregation: "all_clients" divides a table row's update by the weight of the whole cohort
            (textbook FedAvg), "touched_clients" by that of the clients that touched the row.
    """

    communicates: ClassVar[bool] = True
    """Whether parameters or updates are exchanged at all."""
    needs_individual_updates: ClassVar[bool] = False
    """Whether the server must see every client's update, not only their sum."""
    uses_only_the_sum: ClassVar[bool] = False
    """Whether the new parameters follow from the old ones and the sum over one cohort alone.
    Differential privacy requires it, because it protects nothing but that sum."""
    models_per_client: ClassVar[bool] = False
    """Whether clients may have different shared models; see `VERSIONS`."""
    sends_extra_tensors: ClassVar[bool] = False
    """Whether `extra_tensors` travel beside the parameters."""
    solves_statistics: ClassVar[bool] = False
    """Whether it fits models in closed form, whose clients send statistics."""
    asynchronous: ClassVar[bool] = False
    """Whether `schedule` decides who replies in a round, and which parameters each was given."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse declarations that contradict the methods of the class.

        Raises:
            TypeError: if a class declares `uses_only_the_sum` and overrides a method that uses
                more, or inherits the declaration and changes how the sum is used.
        """
        super().__init_subclass__(**kwargs)
        if not cls.uses_only_the_sum:
            return
        more = [name for name in _USES_MORE if name in vars(cls)]
        more += [name for name in _NEEDS_MORE if getattr(cls, name)]
        if more:
            raise TypeError(
                f"{cls.__name__} declares uses_only_the_sum and defines {', '.join(more)}, which "
                "uses more of the clients: set uses_only_the_sum = False"
            )
        changed = [name for name in _USES_THE_SUM if name in vars(cls)]
        if changed and "uses_only_the_sum" not in vars(cls):
            raise TypeError(
                f"{cls.__name__} inherits uses_only_the_sum and overrides {', '.join(changed)}: "
                "declare in the class whether uses_only_the_sum still holds"
            )

    def __init__(self, info: FederationInfo, aggregation: Aggregation) -> None:
        self.info = info
        self.aggregation = aggregation

    # --- server half ------------------------------------------------------------------------

    def initialize(self, initial: Tensors) -> Tensors:
        """Set up the server's state and return the parameters of the first round.

        Args:
            initial: freshly drawn shared parameters.

        Returns:
            The parameters that the first clients are given, possibly in several `VERSIONS`.
        """
        return initial

    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """Move the trained global parameters by the aggregated update.

        Args:
            parameters: those global parameters that the update names.
            update: the aggregated update, full shapes.
        """
        raise NotImplementedError

    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        """Return the next global parameters from the sum over the cohort: a step by its mean.

        Args:
            parameters: the global parameters.
            total: the weighted sum of the updates, or of the statistics.
            round_: facts of the round.
        """
        del round_
        return self.apply_update(parameters, self.mean(total))

    def apply_updates(
        self,
        parameters: Tensors,
        updates: Updates,
        losses: NDArray[np.float64],
        round_: RoundInfo,
    ) -> Tensors:
        """Return the next global parameters from the clients' single updates.

        It is called in place of `apply_sum` if the class declares `needs_individual_updates`.

        Args:
            parameters: the global parameters.
            updates: the cohort's updates, ascending by client.
            losses: float64 (num_clients,), mean training loss of each client.
            round_: facts of the round.
        """
        del losses, round_
        shapes = {name: parameters[name].shape for name in updates.tensors}
        return self.apply_update(parameters, self.aggregate(updates, shapes))

    def aggregate(self, updates: Updates, shapes: Shapes) -> Tensors:
        """Combine the clients' single updates into one (`needs_individual_updates`).

        Args:
            updates: the cohort's updates, ascending by client.
            shapes: full shape of each updated parameter.

        Returns:
            The aggregated update, full shapes.
        """
        raise NotImplementedError

    def schedule(self, parameters: Tensors, round_: int) -> tuple[NDArray[np.int64], Tensors]:
        """Choose the clients that reply in a round, and the parameters of each (`asynchronous`).

        Args:
            parameters: the global parameters before the round.
            round_: the round.

        Returns:
            int64 (replies_per_round,): the clients, ascending; and the parameters that they train
            from, possibly in several `VERSIONS`.
        """
        raise NotImplementedError

    def extra_tensors(self) -> Tensors:
        """Return the tensors sent with the parameters; clients send tensors of the same names."""
        return {}

    def round_metrics(self) -> Mapping[str, float]:
        """Return further metrics of the round that has just been trained."""
        return {}

    def state(self) -> Tensors:
        """Return the server's state without the parameters, for a checkpoint."""
        return {}

    def restore(self, state: Tensors) -> None:
        """Restore a `state`; an empty one is the state before the first round."""
        del state

    @property
    def item_tables(self) -> frozenset[str]:
        """Names of the tensors with a row per item, `extra_tensors` included."""
        return self.info.item_tables

    @property
    def needs_row_weights(self) -> bool:
        """Whether the server must know the weight of the clients that touched each row."""
        return self.aggregation == "touched_clients"

    @property
    def replies_per_round(self) -> int:
        """Number of clients whose replies make up one round."""
        return self.info.clients_per_round

    # --- client half ------------------------------------------------------------------------

    def client_update(self) -> LocalUpdateRule:
        """Return the rule by which clients train; it is sent to the nodes by its fields."""
        return PlainUpdate()

    # --- for subclasses ---------------------------------------------------------------------

    def mean(self, total: UpdateSum) -> Tensors:
        """Return the mean of a weighted sum; `aggregation` chooses the divisor."""
        if self.aggregation == "touched_clients":
            return mean_over_touching_clients(total, self.info.item_tables)
        return mean_over_all_clients(total)

    def apply_update(self, parameters: Tensors, update: Tensors) -> Tensors:
        """Step those parameters that the update names; the others stay."""
        trained = {name: parameters[name] for name in parameters if name in update}
        return parameters | self.server_step(trained, update)


_USES_MORE = ("apply_updates", "aggregate", "schedule")
_NEEDS_MORE = ("needs_individual_updates", "asynchronous", "models_per_client")
_USES_THE_SUM = ("apply_sum", "extra_tensors")

"""Settings of secure aggregation (SecAgg+, or none), checked before the first round."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import Any, Literal

import numpy as np
from typing_extensions import override

from fedrec_flower.communication.secure_aggregation.client import Rules
from fedrec_flower.communication.secure_aggregation.primitives import neighbourhoods
from fedrec_flower.communication.secure_aggregation.quantization import (
    CohortSum,
    Integers,
    Quantizer,
    decode_sum,
    encode_sum,
)
from fedrec_flower.communication.secure_aggregation.server import Coordinator
from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float64Array, Shapes

_MIN_VALUE_BITS = 8  # with fewer bits, the rounding error exceeds the update
_MAX_VALUE_BITS = 52  # bits of the mantissa of a float64
_MAX_MODULUS_BITS = 64
_MIN_COUNT = 2  # a sum over one node or client is not a secret
_HALF = 0.5


class SecureAggregation(ABC):
    """How the server receives sums of updates; `secure_aggregation=...`."""

    @property
    @abstractmethod
    def max_abs_value(self) -> float:
        """Largest magnitude of a value that is not clipped, in units of the parameters."""

    @abstractmethod
    def max_rounding_error(self, cohort: int) -> float:
        """Return the largest rounding error of a value of a sum over at most `cohort` clients."""

    @abstractmethod
    def update_weights(self, examples: Float64Array) -> Float64Array:
        """Return the weights of clients' updates, float64 (num_clients,).

        Args:
            examples: float64 (num_clients,), numbers of interactions.
        """

    @abstractmethod
    def checkpoint_every(self, asked: int | None) -> int | None:
        """Return the number of rounds between checkpoints, given the configured one."""

    @abstractmethod
    def check(self, num_nodes: int, clients_per_round: int) -> None:
        """Check the settings against the size of the federation.

        Raises:
            ConfigError: names the value and the fix.
        """

    @abstractmethod
    def check_strategy(
        self, strategy: str, *, communicates: bool, individual_updates: bool
    ) -> None:
        """Check that a strategy works with this kind of aggregation.

        Args:
            strategy: name of the strategy.
            communicates: whether the strategy sends anything to the server.
            individual_updates: whether the server needs individual updates.

        Raises:
            ConfigError: names the strategy and the fix.
        """


@dataclass(frozen=True, slots=True)
class NoSecureAggregation(SecureAggregation):
    """`secure_aggregation=none`: one exchange per round; the server sees each node's sum."""

    @property
    @override
    def max_abs_value(self) -> float:
        return inf

    @override
    def max_rounding_error(self, cohort: int) -> float:
        del cohort
        return 0.0

    @override
    def update_weights(self, examples: Float64Array) -> Float64Array:
        return examples

    @override
    def checkpoint_every(self, asked: int | None) -> int | None:
        return asked

    @override
    def check(self, num_nodes: int, clients_per_round: int) -> None:
        """Accept any federation."""

    @override
    def check_strategy(
        self, strategy: str, *, communicates: bool, individual_updates: bool
    ) -> None:
        """Accept any strategy."""


@dataclass(frozen=True, slots=True)
class SecAgg(SecureAggregation):
    """`secure_aggregation=secagg`: four exchanges per round; the server sees the sum only.

    Attributes:
        num_neighbours: number of nodes that each node shares masks with, even; None for all. The
            server uses this number; a node refuses fewer than `min_nodes`, itself included, see
            `Rules`.
        threshold: share of a node and its neighbours that can reconstruct the node's secrets, and
            that must remain until the end; above 0.5, so that two disjoint groups of them cannot
            reconstruct different secrets.
        min_nodes: minimum number of nodes whose sum may be released.
        min_clients: minimum number of clients whose sum may be released; a node counts them over
            itself and its neighbours.
        weights: weight of a client's update. "examples": its number of interactions; "powers":
            this number rounded up to a power of two, at most `client_weight`; "equal": 1. The sums
            reveal the weights of a cohort and of the rows that it touched.
        clip_range: largest magnitude of one value of an update (of a statistic: of a value per
            interaction), in its own units; larger values are clipped, counted and logged.
        value_bits: bits of a value of weight 1; None for the largest number that cannot wrap, by
            the size of each cohort.
        modulus_bits: bits of a value on the wire.
        rounding: see `Quantizer`.
        client_weight: largest weight of a client.

    Raises:
        ConfigError: if a value is impossible.
    """

    num_neighbours: int | None
    threshold: float
    min_nodes: int
    min_clients: int
    weights: Literal["powers", "examples", "equal"]
    clip_range: float
    value_bits: int | None
    modulus_bits: Literal[32, 64]
    rounding: Literal["stochastic", "nearest"]
    client_weight: float

    def __post_init__(self) -> None:
        """Validate the settings that do not depend on the federation."""
        name = "secure_aggregation"
        for setting in ("min_nodes", "min_clients"):
            minimum = getattr(self, setting)
            require(
                minimum >= _MIN_COUNT, f"{name}.{setting} must be {_MIN_COUNT} or more: {minimum}"
            )
        k = self.num_neighbours
        require(
            k is None or (k % 2 == 0 and k >= max(_MIN_COUNT, self.min_nodes - 1)),
            f"{name}.num_neighbours={k} is impossible: give an even number, from "
            f"min_nodes - 1 = {self.min_nodes - 1} on, or null",
        )
        require(
            _HALF < self.threshold <= 1,
            f"{name}.threshold={self.threshold} is impossible: give a share above 0.5, up to 1",
        )
        require(self.clip_range > 0, f"{name}.clip_range must be above 0: {self.clip_range}")

    @override
    def check(self, num_nodes: int, clients_per_round: int) -> None:
        """Reject a federation with too few nodes, and a cohort whose sum could wrap."""
        require(
            num_nodes >= self.min_nodes,
            f"secure_aggregation.min_nodes={self.min_nodes} is more than the {num_nodes} nodes "
            f"there are, whose sum hides little: set federation.num_nodes={self.min_nodes} or more",
        )
        require(
            clients_per_round >= self.min_clients,
            f"secure_aggregation.min_clients={self.min_clients} is more than the "
            f"{clients_per_round} clients of a round, whose sum hides little: raise "
            "clients_per_round, or lower min_clients",
        )
        nodes = num_nodes if self.num_neighbours is None else self.num_neighbours + 1
        around = clients_per_round * min(nodes, num_nodes) / num_nodes
        require(
            around >= self.min_clients,
            f"secure_aggregation.min_clients={self.min_clients} is more than the {around:.3g} "
            "clients that a node and its neighbours have on average, and a node counts no others: "
            "raise num_neighbours, or lower min_clients",
        )
        asked = self.value_bits
        room = self._max_value_bits(clients_per_round)
        wide = "" if self.modulus_bits == _MAX_MODULUS_BITS else ", or set modulus_bits=64"
        about = f"{clients_per_round} clients of weight up to {self.client_weight:g}"
        require(
            room >= _MIN_VALUE_BITS,
            f"secure_aggregation.modulus_bits={self.modulus_bits} leaves {room} bits to a value of "
            f"{about}, too few: lower clients_per_round{wide}",
        )
        require(
            asked is None or _MIN_VALUE_BITS <= asked <= room,
            f"secure_aggregation.value_bits={asked} is impossible: the sum over {about} would "
            f"wrap beyond {room} bits, so choose between {_MIN_VALUE_BITS} and {room}{wide}",
        )

    def counted(self, hosted: Sequence[int]) -> tuple[int, int]:
        """Return the groups of nodes in which nodes count the clients of a sum.

        Each node counts the clients of itself and its neighbours, and refuses a sum over fewer than
        `min_clients`.

        Args:
            hosted: number of clients that each node hosts.

        Returns:
            The number of different groups, and the minimum number of clients that the nodes of a
            group host.
        """
        if self.num_neighbours is None or self.num_neighbours >= len(hosted) - 1:
            return 1, sum(hosted)
        return len(hosted), sum(sorted(hosted)[: self.num_neighbours + 1])

    @override
    def check_strategy(
        self, strategy: str, *, communicates: bool, individual_updates: bool
    ) -> None:
        """Reject a strategy that sends nothing, or that needs individual updates."""
        fix = "choose one that averages, such as fedadam, or secure_aggregation=none"
        require(communicates, f"{strategy} sends nothing that could be aggregated securely: {fix}")
        require(
            not individual_updates,
            f"{strategy} needs individual updates, which secure aggregation hides: {fix}",
        )

    def _max_value_bits(self, cohort: int) -> int:
        """Return the most bits of a value of weight 1 such that no sum over `cohort` can wrap."""
        largest = (1 << (self.modulus_bits - 1)) - 1
        # Exact integers: a float64 would round 2^63 - 1 to 2^63, which wraps.
        steps = largest // Fraction(self._max_weight(cohort))
        return min(steps.bit_length(), _MAX_VALUE_BITS)

    def _max_weight(self, num_clients: int) -> float:
        """Return a bound of the total weight of `num_clients` clients, and of their number."""
        return num_clients * max(1.0, self.client_weight)

    @override
    def update_weights(self, examples: Float64Array) -> Float64Array:
        """Return the weights by the setting `weights`; 0 and 1 interactions weigh 0 and 1."""
        if self.weights == "equal":
            return np.minimum(examples, 1.0)
        if self.weights == "examples":
            return examples
        powers = 2.0 ** np.ceil(np.log2(np.maximum(examples, 1.0)))
        return np.where(examples > 0, np.minimum(powers, max(1.0, self.client_weight)), 0.0)

    @override
    def checkpoint_every(self, asked: int | None) -> int | None:
        """Return 1 if checkpoints are configured, otherwise None.

        Clients do not answer a round again after its sum was released, so a run cannot go back by
        several rounds.
        """
        return None if asked is None else 1

    def quantizer(self, cohort: int) -> Quantizer:
        """Return a quantizer such that no sum over `cohort` clients wraps."""
        bits = self._max_value_bits(cohort)
        if self.value_bits is not None:
            bits = min(bits, self.value_bits)
        return Quantizer(bits, self.modulus_bits, self.rounding)

    @property
    @override
    def max_abs_value(self) -> float:
        return self.clip_range

    @override
    def max_rounding_error(self, cohort: int) -> float:
        return self.clip_range / self.quantizer(cohort).steps

    def coordinator(self, num_members: int) -> Coordinator:
        """Return the server side of a session among members 0, 1, ..."""
        neighbours = neighbourhoods(num_members, self.num_neighbours)
        num_holders = 1 + max(map(len, neighbours.values()), default=0)
        return Coordinator(neighbours, self.rules.threshold(num_holders), self.min_clients)

    @property
    def rules(self) -> Rules:
        """Requirements of each member; the number of neighbours is not one of them."""
        return Rules(self.threshold, self.min_nodes, self.min_clients)

    def quantize_sum(
        self, node_sum: CohortSum, num_clients: int, cohort: int, rng: np.random.Generator
    ) -> Integers:
        """Encode a node's sum as integers modulo 2^modulus_bits.

        Args:
            node_sum: sum over the node's clients.
            num_clients: number of the node's clients that were asked.
            cohort: number of clients of all nodes that were asked.
            rng: for stochastic rounding.

        Returns:
            Unsigned integers (`vector_length`,).
        """
        max_weight = self._max_weight(num_clients)
        return encode_sum(node_sum, self.quantizer(cohort), self.clip_range, max_weight, rng)

    def dequantize_sum(
        self, vector: Integers, cohort: int, shapes: Shapes, num_rows: int
    ) -> CohortSum:
        """Decode the sum of all nodes' vectors.

        Args:
            vector: unsigned integers (`vector_length`,).
            cohort: number of clients of all nodes that were asked.
            shapes: shapes of the tensors by name.
            num_rows: number of row weights.
        """
        return decode_sum(vector, self.quantizer(cohort), self.clip_range, shapes, num_rows)


def facts() -> dict[str, Any]:
    """Return the statement in summary.json: the values that masks hide, and those they do not."""
    return {
        "secure_aggregation": {
            "covers": "the training messages of the clients of one node: in each round, the server "
            "reads only the sum over all nodes",
            "does_not_cover": [
                "the sum itself, which is exact unless privacy adds noise: of updates or "
                "statistics, weights, training losses, numbers of clients and of clipped values, "
                "and row weights where rows are divided by them",
                "sums of different rounds: if their cohorts differ by few clients, they reveal "
                "these clients; and the sums of many rounds together reveal single clients, "
                "because the server knows the clients of each cohort (attack=interaction_inference "
                "attack.method=separation)",
                "which clients of a node were lost, and the kind of failure, such as not_finite: "
                "sent in clear",
                "the evaluation sums that each node sends: in clear and exact; if a node hosts one "
                "client, they are those of this client",
                "which clients each node hosts, and when its messages arrive; their sizes are the "
                "same for all nodes",
                "a server that departs from the protocol: it gets two sums of the same parameters "
                "by another name of the run or by the number of the next round, and it can invent "
                "nodes, or give a node fewer neighbours than num_neighbours, down to min_nodes - 1",
                "nodes that collude with the server, if they reach secure_aggregation.threshold",
                "metrics, tables and files of the run folder: they are made without masks",
            ],
        }
    }

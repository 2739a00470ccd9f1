"""The settings of SecAgg+, checked before the first round.

No secure aggregation: what a node sends is seen by the server as it is.

What summary.json says of masked sums.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.secure_aggregation.client import Rules
from fedrec_flower.communication.secure_aggregation.primitives import neighbourhoods
from fedrec_flower.communication.secure_aggregation.quantization import (
    CohortSum,
    Integers,
    Quantizer,
    Shapes,
    decode,
    encode,
)
from fedrec_flower.communication.secure_aggregation.server import Coordinator
from fedrec_flower.core.errors import require

_FEWEST_BITS = 8  # of a value: below, an update is more noise than update
_MOST_BITS = 52  # a float64 has no more
_WIDEST = 64  # bits of what can travel
_PAIR = 2
_HALF = 0.5


@dataclass(frozen=True, slots=True)
class SecAgg:
    """`secure_aggregation=secagg`: four exchanges a round, of which the sum is all that comes out.

    Attributes:
        num_neighbours: nodes that each node shares masks with, even; None: all of them. The server
            keeps to it; a node refuses fewer than `min_nodes` with itself, see `Rules`.
        threshold: share of a node and its neighbours whose shares make up its secrets, and who
            must stay to the end; above 0.5, lest two groups of them learn different secrets.
        min_nodes: nodes whose sum may be released, at least.
        min_clients: clients whose sum may be released, at least; a node counts them over itself
            and its neighbours.
        weights: what a client's update weighs: "examples": as many as its interactions; "powers":
            that number rounded up to a power of two, though no more than `client_weight`;
            "equal": 1. The sums tell the weights of a cohort and of the rows that it touched.
        clip_range: largest magnitude of one value of an update (of a statistic: of a value per
            interaction), in its own units; what exceeds it is clipped, counted and warned of.
        value_bits: of a value of weight 1; None: as many as cannot wrap, by the size of each
            cohort.
        modulus_bits: of what travels.
        rounding: see `Quantizer`.
        client_weight: no client's weight is larger.

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
        """Refuse what cannot be, and what could wrap."""
        k, least, name = self.num_neighbours, self.min_nodes, "secure_aggregation"
        require(least >= _PAIR, f"{name}.min_nodes must be {_PAIR} or more: {least}")
        fewest = self.min_clients
        require(fewest >= _PAIR, f"{name}.min_clients must be {_PAIR} or more: {fewest}")
        require(
            k is None or (k % 2 == 0 and k >= max(_PAIR, least - 1)),
            f"{name}.num_neighbours={k} is impossible: give an even number, from "
            f"min_nodes - 1 = {least - 1} on, or null",
        )
        require(
            _HALF < self.threshold <= 1,
            f"{name}.threshold={self.threshold} is impossible: give a share above 0.5, up to 1",
        )
        require(self.clip_range > 0, f"{name}.clip_range must be above 0: {self.clip_range}")

    def check(self, num_nodes: int, clients_per_round: int) -> None:
        """Refuse a federation of too few nodes, and a cohort whose sum could wrap.

        Raises:
            ConfigError: names the value and the mend.
        """
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
        asked, room = self.value_bits, self._room(clients_per_round)
        wide = "" if self.modulus_bits == _WIDEST else ", or set modulus_bits=64"
        about = f"{clients_per_round} clients of weight up to {self.client_weight:g}"
        require(
            room >= _FEWEST_BITS,
            f"secure_aggregation.modulus_bits={self.modulus_bits} leaves {room} bits to a value of "
            f"{about}, too few: lower clients_per_round{wide}",
        )
        require(
            asked is None or _FEWEST_BITS <= asked <= room,
            f"secure_aggregation.value_bits={asked} is impossible: the sum over {about} would "
            f"wrap beyond {room} bits, so choose between {_FEWEST_BITS} and {room}{wide}",
        )

    def counted(self, hosted: Sequence[int]) -> tuple[int, int]:
        """Of how many clients nodes refuse a sum, if fewer than `min_clients` are in it.

        Args:
            hosted: how many clients each node hosts.

        Returns:
            How many groups of nodes are counted, each by itself, and how many clients the nodes of
            a group host at least.
        """
        if self.num_neighbours is None or self.num_neighbours >= len(hosted) - 1:
            return 1, sum(hosted)
        return len(hosted), sum(sorted(hosted)[: self.num_neighbours + 1])

    def check_strategy(self, strategy: str, *, shares: bool, stacked: bool) -> None:
        """Refuse a strategy that does with less than a sum, or needs more.

        Args:
            strategy: its name.
            shares: whether anything travels between clients.
            stacked: whether the server must see every update by itself.

        Raises:
            ConfigError: names the strategy and the mend.
        """
        mend = "choose one that averages, such as fedadam, or secure_aggregation=none"
        require(shares, f"{strategy} sends nothing that could be aggregated securely: {mend}")
        require(
            not stacked,
            f"{strategy} looks at every update by itself, which secure aggregation hides: {mend}",
        )

    def _room(self, cohort: int) -> int:
        """Bits of a value of weight 1 with which no sum over so many clients can wrap."""
        largest = (1 << (self.modulus_bits - 1)) - 1
        # Of whole numbers: a float64 would take 2^63 - 1 for 2^63, which wraps.
        room = largest // Fraction(self._weight(cohort))
        return min(room.bit_length(), _MOST_BITS)

    def _weight(self, num_clients: int) -> float:
        """No clients have more weight together, nor are they more."""
        return num_clients * max(1.0, self.client_weight)

    def weighed(self, examples: NDArray[np.float64]) -> NDArray[np.float64]:
        """What clients' updates weigh.

        Args:
            examples: float64 (num_clients,), their interactions; 0 and 1 stay as they are.
        """
        if self.weights == "equal":
            return np.minimum(examples, 1.0)
        if self.weights == "examples":
            return examples
        powers = 2.0 ** np.ceil(np.log2(np.maximum(examples, 1.0)))
        return np.where(examples > 0, np.minimum(powers, max(1.0, self.client_weight)), 0.0)

    def checkpoint_every(self, asked: int | None) -> int | None:
        """Rounds between checkpoints: 1, if any are asked for; None for none.

        Clients do not answer a round again once its sum was released, so a run cannot go back by
        several rounds.
        """
        return None if asked is None else 1

    def quantizer(self, cohort: int) -> Quantizer:
        """Makes integers of sums, of which no sum over so many clients wraps."""
        room = self._room(cohort)
        bits = room if self.value_bits is None else min(room, self.value_bits)
        return Quantizer(bits, self.modulus_bits, self.rounding)

    def most_rounded(self, cohort: int) -> float:
        """The most that a value of a sum of at most so many clients is rounded by."""
        return self.clip_range / self.quantizer(cohort).steps

    def coordinator(self, num_members: int) -> Coordinator:
        """The server's side of a session among members 0, 1, ..."""
        neighbours = neighbourhoods(num_members, self.num_neighbours)
        holders = 1 + max((len(others) for others in neighbours.values()), default=0)
        return Coordinator(neighbours, self.rules.threshold(holders), self.min_clients)

    @property
    def rules(self) -> Rules:
        """What each member demands of a session; the number of neighbours is not among it."""
        return Rules(self.threshold, self.min_nodes, self.min_clients)

    def encoded(
        self, said: CohortSum, num_clients: int, cohort: int, rng: np.random.Generator
    ) -> Integers:
        """A node's vector; see `sums.encode`.

        Args:
            said: by its clients.
            num_clients: how many of them were asked.
            cohort: how many clients of all nodes were asked.
            rng: for stochastic rounding.
        """
        most = self._weight(num_clients)
        return encode(said, self.quantizer(cohort), self.clip_range, most, rng)

    def decoded(self, vector: Integers, cohort: int, shapes: Shapes, num_rows: int) -> CohortSum:
        """The sums of a cohort of so many clients; see `sums.decode`."""
        return decode(vector, self.quantizer(cohort), self.clip_range, shapes, num_rows)


@dataclass(frozen=True, slots=True)
class NoSecureAggregation:
    """`secure_aggregation=none`: one exchange a round."""

    @property
    def clip_range(self) -> float:
        """See `SecAgg.clip_range`; nothing is clipped."""
        return inf

    def most_rounded(self, cohort: int) -> float:
        """See `SecAgg.most_rounded`; nothing is."""
        del cohort
        return 0.0

    def weighed(self, examples: NDArray[np.float64]) -> NDArray[np.float64]:
        """See `SecAgg.weighed`; as many as the interactions."""
        return examples

    def checkpoint_every(self, asked: int | None) -> int | None:
        """See `SecAgg.checkpoint_every`; as asked."""
        return asked

    def check(self, num_nodes: int, clients_per_round: int) -> None:
        """See `SecAgg.check`; anything goes."""
        del num_nodes, clients_per_round

    def check_strategy(self, strategy: str, *, shares: bool, stacked: bool) -> None:
        """See `SecAgg.check_strategy`; anything goes."""
        del strategy, shares, stacked


def facts() -> dict[str, Any]:
    """What masks hide from the server, and every value that they do not hide."""
    return {
        "secure_aggregation": {
            "covers": "what the clients of one node send in training: of a round, the server reads "
            "the sum over all nodes alone",
            "does_not_cover": [
                "the sum itself, which is exact unless privacy adds noise: of updates or "
                "statistics, weights, training losses, numbers of clients and of clipped values, "
                "and row weights where rows are divided by them",
                "sums of different rounds: where few clients differ, they tell of these clients; "
                "and the sums of many rounds together give single clients away, because the "
                "server knows who was in each cohort (attack=interaction_inference "
                "attack.method=separation)",
                "which clients of a node were lost, and the kind of reason, such as not_finite: "
                "sent in clear",
                "the evaluation sums that each node sends: in clear and exact, of a single client "
                "where it hosts one",
                "which clients each node hosts, and when its messages arrive; their sizes are the "
                "same for all nodes",
                "a server that departs from the protocol: it gets two sums of the same parameters "
                "by another name of the run or by the number of the next round, and it can invent "
                "nodes, or give a node fewer neighbours than num_neighbours, down to min_nodes - 1",
                "nodes that collude with the server, from secure_aggregation.threshold on",
                "metrics, tables and files of the run folder: they are made without masks",
            ],
        }
    }

"""`NumPyClient`s: one client as Flower knows it, and many clients of one node at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.client import NumPyClient
from numpy.typing import NDArray

from fedrec_flower.aggregation import ROW_WEIGHT, UpdateSum
from fedrec_flower.client.node import Node
from fedrec_flower.client.trainers import neighbours
from fedrec_flower.evaluation import MetricSums
from fedrec_flower.interactions import Part

Arrays = list[NDArray[Any]]
EVALUATED = (Part.VALIDATION, Part.TEST)


class CohortClient(NumPyClient):
    """Stands for the sampled clients that one node hosts.

    Each trains on its own data from the same global parameters. What leaves is the sum of their
    updates, weighted by `num_examples`: sums of nodes add up to the sum over all clients, so
    hosting never changes the mathematics.

    Args:
        node: the node that hosts them.
        clients: codes of the clients.
    """

    def __init__(self, node: Node, clients: Sequence[int]) -> None:
        self.node, self.clients = node, clients

    @property
    def update_names(self) -> list[str]:
        """Names of the arrays that `fit` returns, in their order."""
        names = self.node.trainer.names
        return [*names, ROW_WEIGHT] if names else []

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        """Train the clients.

        Args:
            parameters: global shared parameters, in the node's message order.
            config: `round`, int.

        Returns:
            The weighted sum of updates per parameter, or the sum of each statistic; then float64
            (num_items,) the summed weight of the clients that touched each item row (empty for
            statistics); the summed weight, `num_examples`; and `loss`, the clients' mean training
            losses summed with the same weights, and `bytes_up`, the sum over clients of the bytes
            that each would send alone.
        """
        total, metrics = self.train(parameters, config["round"])
        names = self.node.trainer.names
        sums: Arrays = [total.tensors[name].astype(np.float32) for name in names]
        if sums:  # where nothing is shared, nobody need know who touched what
            sums.append(total.row_weight)
        return sums, int(total.weight), metrics

    def train(self, parameters: Arrays, round_: int) -> tuple[UpdateSum, dict[str, Any]]:
        """Train the clients; returns the sum of what they send and metrics; see `Trainer`."""
        return self.node.trainer.train(self.clients, self.node.named(parameters), round_)

    def evaluate(
        self, parameters: Arrays, config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Score the clients' held-out items.

        Args:
            parameters: global shared parameters, in the node's message order.
            config: `slot`, str, whose personal parameters are used; `note`, bool, whether to
                keep per-user results on the node's disk.

        Returns:
            0.0 (Flower's place for a loss; here every metric stands among the metrics), the
            number of users evaluated, and the sums "<part>/<metric>" as [sum, sum of squares,
            count].
        """
        sums, num_users = {part: MetricSums() for part in EVALUATED}, 0
        shared = self.node.named(parameters)
        for group in self._groups():
            num_users += self._evaluate(group, shared, sums, config)
        metrics = {
            f"{part.name.lower()}/{m}": [s.total[m], s.squares[m], s.count[m]]
            for part, s in sums.items()
            for m in s.total
        }
        return 0.0, num_users, metrics

    def _groups(self) -> list[range]:
        """Clients to be evaluated as one: neighbours, where only their users' rows differ."""
        if not self.node.personal_is_per_user:
            return [range(client, client + 1) for client in self.clients]
        return neighbours(self.clients)

    def _evaluate(
        self,
        group: range,
        shared: dict[str, NDArray[Any]],
        sums: dict[Part, MetricSums],
        config: dict[str, Any],
    ) -> int:
        node = self.node
        data = node.data.client(group.start, len(group))
        node.fill(data, shared, config["slot"])
        result = node.evaluator.evaluate(
            node.model, data, node.data.num_items, node.seed, lists=config["note"]
        )
        for part, values in result.values.items():
            sums[part].add(values)
        if config["note"]:
            first_test = int(node.data.part(Part.TEST).offsets[data.first])
            num_test = len(node.data.part(Part.TEST).item)
            for name, rows in result.records.items():
                by_user = name.startswith("per_user_")
                place = (data.first, node.data.num_users) if by_user else (first_test, num_test)
                node.store.note(name, *place, rows)
        return data.num_users


class RecommenderClient(NumPyClient):
    """One client as Flower's own strategies expect it: replies with its new shared parameters.

    Args:
        node: the node that hosts it.
        client: its code.
    """

    def __init__(self, node: Node, client: int) -> None:
        self.cohort = CohortClient(node, [client])

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        """Train; returns new shared parameters, `num_examples` and the mean training `loss`."""
        total, metrics = self.cohort.train(parameters, config["round"])
        if not total.weight:  # no training data: nothing is learnt, nothing is said of it
            return parameters, 0, {"loss": 0.0}
        node = self.cohort.node
        new = node.trainer.finish(total, node.named(parameters))
        arrays = [new[name] for name in node.shared_names]
        return arrays, int(total.weight), {"loss": metrics["loss"] / total.weight}

    def evaluate(
        self, parameters: Arrays, config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Score the client's held-out items; see `CohortClient.evaluate`."""
        return self.cohort.evaluate(parameters, {"slot": "current", "note": False} | config)

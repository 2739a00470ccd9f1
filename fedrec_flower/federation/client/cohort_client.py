"""`NumPyClient`s: one client as Flower knows it, and many clients of one node at once."""

import logging
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

from flwr.client import NumPyClient
from numpy.typing import NDArray

from fedrec_flower.communication.schema import EVALUATED_PARTS, metrics_of
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.evaluation.metric_sums import MetricSums
from fedrec_flower.federation.client.node import Node
from fedrec_flower.federation.client.trainers import neighbours
from fedrec_flower.training.model_versions import Versions

Arrays = list[NDArray[Any]]

_LOG = logging.getLogger(__name__)
_UNSAID = "training failed on a node under local privacy: read the log of the node for the reason"


class CohortClient(NumPyClient):
    """Stands for the sampled clients that one node hosts.

    Each trains on its own data. What leaves is the sum of their updates, weighted by
    `num_examples`: sums of nodes add up to the sum over all clients, so hosting never changes the
    mathematics. Where a strategy must see every update by itself, they leave side by side.

    Args:
        node: the node that hosts them.
        clients: codes of the clients.
    """

    def __init__(self, node: Node, clients: Sequence[int]) -> None:
        self.node, self.clients = node, clients

    def fit(self, parameters: Arrays, config: dict[str, Any]) -> tuple[Arrays, int, dict[str, Any]]:
        """Train the clients.

        Args:
            parameters: global shared parameters, in the node's message order; with an axis of
                versions in front where `versions` says so. What the strategy gives beside them
                follows.
            config: `round`, int; `attempt`, int, how often the round was tried before; and
                `versions`, the version that each client is given, if there are several; and
                `clip_norm`, see `ServerMechanism.clip_norm`.

        Returns:
            The arrays of `TrainResult.arrays`; the summed weight, `num_examples`; and
            `TrainResult.metrics`.
        """
        answer = self.train(parameters, config)
        return answer.arrays(self.node.trainer.names), int(answer.weight), answer.metrics()

    def train(self, parameters: Arrays, config: dict[str, Any]) -> TrainResult:
        """Train the clients; see `fit`.

        Raises:
            TrainingError: if a client has answered as often as its node allows; under local
                privacy, whatever else went wrong: the server sees the text.
        """
        if self.node.most_answers is not None:
            self.node.store.count(self.clients, self.node.most_answers)
        count = len(self.node.shared_names)
        given, beside = self._given(parameters[:count], config), parameters[count:]
        try:
            return self.node.trainer.train(
                self.clients,
                given,
                config["round"],
                config.get("attempt", 0),
                beside,
                config.get("clip_norm", inf),
            )
        except ConfigError:  # of the settings, which the server knows
            raise
        except Exception:
            if not self.node.local:
                raise
            _LOG.exception("round %d: training failed", config["round"])
        raise TrainingError(_UNSAID)

    def _given(self, parameters: Arrays, config: dict[str, Any]) -> Versions:
        named = self.node.named(parameters)
        if not (versions := config.get("versions")):
            return Versions.single(named)
        return Versions(named, dict(zip(self.clients, versions, strict=True)))

    def evaluate(
        self, parameters: Arrays, config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Score the clients' held-out items.

        Args:
            parameters: global shared parameters, in the node's message order.
            config: `slot`, str, whose personal parameters are used; `note`, bool, whether to
                keep per-user results on the node's disk; `round`, int, part of the address of
                finetuning's draws; `versions` as in `fit`.

        Returns:
            0.0 (Flower's place for a loss; here every metric stands among the metrics), the
            number of users evaluated, and the sums "<part>/<metric>" as [sum, sum of squares,
            count].

        Raises:
            TrainingError: if clients are named and the server may not see such sums.
        """
        if self.clients and not self.node.scores:
            raise TrainingError(
                "exact evaluation sums are asked for, which would tell a server that is not "
                "trusted what this node's clients hold out: a node under local privacy sends none"
            )
        sums, num_users = {part: MetricSums() for part in EVALUATED_PARTS}, 0
        given = self._given(parameters, config)
        for data, own in self._scored(given, config):
            self.node.fill(data, given.of(data.client), config["slot"], own)
            num_users += self._evaluate(data, sums, config)
        return 0.0, num_users, dict(metrics_of(sums))

    def _scored(
        self, given: Versions, config: dict[str, Any]
    ) -> Iterable[tuple[ClientData, Tensors]]:
        """Clients, or several read as one, and what they score with in place of what is kept."""
        node = self.node
        if node.finetuning is None:
            groups = self._groups(given)
            return [(node.data.client(group.start, len(group)), {}) for group in groups]
        members = [node.data.client(client) for client in self.clients]
        return node.finetuning.tune(members, given, config["slot"], config.get("round", 0))

    def _groups(self, given: Versions) -> list[range]:
        """Clients to be scored as one: neighbours, where only their users' rows differ."""
        if not self.node.personal_is_per_user or given.given:
            return [range(client, client + 1) for client in self.clients]
        return neighbours(self.clients)

    def _evaluate(
        self, data: ClientData, sums: dict[Part, MetricSums], config: dict[str, Any]
    ) -> int:
        node = self.node
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
        answer, node = self.cohort.train(parameters, config), self.cohort.node
        if answer.total is None:
            raise TrainingError("a client alone sends its parameters: no strategy can stack them")
        if not answer.weight:  # no training data: nothing is learnt, nothing is said of it
            return parameters, 0, {"loss": 0.0}
        given = node.named(parameters)
        new = given | node.trainer.finish(answer.total, given)
        arrays = [new[name] for name in node.shared_names]
        return arrays, int(answer.weight), {"loss": answer.loss / answer.weight}

    def evaluate(
        self, parameters: Arrays, config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Score the client's held-out items; see `CohortClient.evaluate`."""
        return self.cohort.evaluate(parameters, {"slot": "current", "note": False} | config)

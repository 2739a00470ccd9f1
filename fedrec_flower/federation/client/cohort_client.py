"""Flower `NumPyClient`s: all sampled clients of a node at once, and a single client."""

import logging
from collections.abc import Sequence
from math import inf
from typing import Any

from flwr.client import NumPyClient
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.communication.schema import EVALUATED_PARTS, metrics_of
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.errors import ConfigError, TrainingError
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Scorer
from fedrec_flower.evaluation.metric_sums import MetricSums
from fedrec_flower.federation.client.node import Node
from fedrec_flower.training.model_versions import Versions

ArrayList = list[NDArray[Any]]

_LOG = logging.getLogger(__name__)
_HIDDEN_FAILURE = (
    "training failed on a node under local privacy: read the log of the node for the reason"
)


class CohortClient(NumPyClient):
    """Trains and evaluates the sampled clients of a node, each client on its data.

    The node sends the sum of their updates, weighted by `num_examples`. The sums of all nodes add
    up to the sum over all clients, so hosting never changes the mathematics. If the strategy needs
    individual updates, they are sent instead.

    Args:
        node: the node that hosts the clients.
        clients: codes of the clients.
    """

    def __init__(self, node: Node, clients: Sequence[int]) -> None:
        self.node = node
        self.clients = clients

    @override
    def fit(
        self, parameters: ArrayList, config: dict[str, Any]
    ) -> tuple[ArrayList, int, dict[str, Any]]:
        """Train the clients.

        Args:
            parameters: global shared parameters, in the node's message order, then the extra
                tensors of the strategy. With several versions, each array has an axis of versions
                in front.
            config: `round`, int; `attempt`, int, number of earlier attempts at the round;
                `versions`, the version of each client, if there are several; `clip_norm`, see
                `ServerMechanism.clip_norm`.

        Returns:
            The arrays of `TrainResult.arrays`; the summed weight, `num_examples`; and
            `TrainResult.metrics`.
        """
        result = self.train(parameters, config)
        return result.arrays(self.node.trainer.names), int(result.weight), result.metrics()

    def train(self, parameters: ArrayList, config: dict[str, Any]) -> TrainResult:
        """Train the clients; see `fit`.

        Raises:
            TrainingError: if a client has answered as often as its node allows. Under local
                privacy, also for any other error but a ConfigError: the server sees the text.
        """
        if self.node.max_answers is not None:
            self.node.store.count_answers(self.clients, self.node.max_answers)
        num_shared = len(self.node.shared_names)
        global_params = self._global_params(parameters[:num_shared], config)
        try:
            return self.node.trainer.train(
                self.clients,
                global_params,
                config["round"],
                config.get("attempt", 0),
                parameters[num_shared:],
                config.get("clip_norm", inf),
            )
        except ConfigError:  # about settings, which are no secret for the server
            raise
        except Exception:
            if not self.node.protects_from_server:
                raise
            _LOG.exception("round %d: training failed", config["round"])
        raise TrainingError(_HIDDEN_FAILURE)

    def _global_params(self, parameters: ArrayList, config: dict[str, Any]) -> Versions:
        tensors = self.node.named(parameters)
        versions = config.get("versions")
        if not versions:
            return Versions.single(tensors)
        return Versions(tensors, dict(zip(self.clients, versions, strict=True)))

    @override
    def evaluate(
        self, parameters: ArrayList, config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Evaluate the clients on their held-out items.

        Args:
            parameters: global shared parameters, in the node's message order.
            config: `slot`, str, slot of the personal parameters; `note`, bool, whether to write
                per-user results to the node's disk; `round`, int, part of the address of
                finetuning's draws; `versions` as in `fit`.

        Returns:
            0.0 in place of Flower's loss; the number of evaluated users; and the sums
            "<part>/<metric>" as [sum, sum of squares, count].

        Raises:
            TrainingError: if there are clients and the server may not see such sums.
        """
        if self.clients and not self.node.sends_metrics:
            raise TrainingError(
                "exact evaluation sums are asked for, which would show held-out items of this "
                "node's clients to a server that is not trusted: a node under local privacy sends "
                "none"
            )
        sums = {part: MetricSums() for part in EVALUATED_PARTS}
        num_users = 0
        given, round_ = self._global_params(parameters, config), config.get("round", 0)
        for users, scorer in self.node.scorers(self.clients, given, config["slot"], round_):
            self._evaluate(users, scorer, sums, lists=config["note"])
            num_users += users.num_users
        return 0.0, num_users, dict(metrics_of(sums))

    def _evaluate(
        self, users: UserBatch, scorer: Scorer, sums: dict[Part, MetricSums], *, lists: bool
    ) -> None:
        """Evaluate users and add their values to the sums; with `lists`, write their records."""
        node = self.node
        result = node.evaluator.evaluate(scorer, users, node.data.num_items, node.seed, lists=lists)
        for part, values in result.values.items():
            sums[part].add(values)
        if not lists:
            return
        test = node.data.part(Part.TEST)
        for name, rows in result.records.items():
            if name.startswith("per_user_"):
                node.store.write_records(name, users.positions, node.data.num_users, rows)
            else:
                places = test.rows_of(users.positions)
                node.store.write_records(name, places, len(test.item), rows)


class RecommenderClient(NumPyClient):
    """A single client for Flower's own strategies: it replies with its new shared parameters.

    Args:
        node: the node that hosts the client.
        client: its code.
    """

    def __init__(self, node: Node, client: int) -> None:
        self.cohort = CohortClient(node, [client])

    @override
    def fit(
        self, parameters: ArrayList, config: dict[str, Any]
    ) -> tuple[ArrayList, int, dict[str, Any]]:
        """Train; returns new shared parameters, `num_examples` and the mean training `loss`."""
        result = self.cohort.train(parameters, config)
        node = self.cohort.node
        if result.total is None:
            raise TrainingError("a single client sends its parameters, not individual updates")
        if not result.weight:  # the client has no training data
            return parameters, 0, {"loss": 0.0}
        global_params = node.named(parameters)
        new_params = global_params | node.trainer.finish(result.total, global_params)
        arrays = [new_params[name] for name in node.shared_names]
        return arrays, int(result.weight), {"loss": result.loss / result.weight}

    @override
    def evaluate(
        self, parameters: ArrayList, config: dict[str, Any]
    ) -> tuple[float, int, dict[str, Any]]:
        """Evaluate the client on its held-out items; see `CohortClient.evaluate`."""
        return self.cohort.evaluate(parameters, {"slot": "current", "note": False} | config)

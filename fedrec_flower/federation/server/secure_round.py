"""Collects the training replies of a round; with secure aggregation, by four exchanges and one sum.

With secure aggregation, the server holds the state of a `Coordinator` and never a node's vector in
clear. Replies are validated like any reply: a node that is silent, replies with an error or sends
an invalid message has dropped out.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from flwr.app import Message, RecordDict

from fedrec_flower.communication.schema import (
    TRAIN_MASKED,
    TrainReply,
    payload_bytes,
    read_config,
)
from fedrec_flower.communication.secure_aggregation.messages import (
    AdvertiseRequest,
    Contribution,
    MaskReply,
    MaskRequest,
    PublicKeys,
    RevealedShares,
    ShareReply,
    ShareRequest,
    StageRequest,
)
from fedrec_flower.communication.secure_aggregation.quantization import vector_length
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg, SecureAggregation
from fedrec_flower.communication.secure_aggregation.server import TooFewClientsError, TooFewError
from fedrec_flower.communication.validation import (
    InvalidReplyError,
    ReplySchema,
    ValidReplies,
    read_reply,
)
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.updates import ROW_WEIGHT
from fedrec_flower.federation.server.dispatch import Dispatcher

_LOG = logging.getLogger(__name__)

ContentT = TypeVar("ContentT")


def gather(
    secure: SecureAggregation,
    requests: Sequence[Message],
    dispatcher: Dispatcher,
    schema: ReplySchema,
    min_clients: float,
) -> ValidReplies[TrainReply]:
    """Send requests to train, and collect the valid replies.

    Args:
        secure: whether the server may see each node's sum.
        requests: the requests to train, one per node.
        dispatcher: sends them, and knows the clients for which each node was asked.
        schema: expected content of a reply; with secure aggregation, of the sum of all replies.
        min_clients: number of clients that must reply. With secure aggregation no sum over fewer
            clients is unmasked, because a sum that the server discards would still be known to it.
    """
    if isinstance(secure, SecAgg):
        return SecAggRound(secure, requests, dispatcher, schema, min_clients).collect()
    replies = dispatcher.exchange(requests)
    return ValidReplies.collect(replies, dispatcher.asked, schema)


class SecAggRound:
    """One round of secure aggregation. The arguments are those of `gather`.

    The members of the protocol are nodes, in the order in which they are asked.
    """

    def __init__(
        self,
        settings: SecAgg,
        requests: Sequence[Message],
        dispatcher: Dispatcher,
        schema: ReplySchema,
        min_clients: float,
    ) -> None:
        self._settings = settings
        self._schema = schema
        self._min_clients = max(min_clients, settings.min_clients)
        self._requests = list(requests)
        self._dispatcher = dispatcher
        self._session = uuid4().hex
        self._nodes = [message.metadata.dst_node_id for message in requests]
        self._clients = [dispatcher.asked[node] for node in self._nodes]
        self._coordinator = settings.coordinator(len(self._nodes))
        self._failures: dict[int, Failure] = {}
        self._bytes_up = 0
        if any(read_config(message.content)["versions"] for message in requests):
            raise ConfigError(
                "secure_aggregation=secagg adds up updates of one model, but clients are given "
                "several: choose another strategy, or secure_aggregation=none"
            )

    def collect(self) -> ValidReplies[TrainReply]:
        """Return the sum over all remaining nodes as one reply; no reply if too few remain.

        Whether the round is valid is decided before shares are asked for. If the sum cannot be used
        after that, its clients do not answer the round again: see
        `federation.client.secure_client`.
        """
        try:
            reply = self._sum()
            self._schema.check(reply, self._clients_of(self._coordinator.masked))
        except TooFewError as error:
            return self._without_reply(Failure(error.kind, str(error)))
        except InvalidReplyError as error:
            return self._without_reply(error.failure)
        isolated = set(range(len(self._nodes))) - self._coordinator.masked
        failure = Failure(FailureKind.TOO_FEW_NODES, "around its own")
        failures = dict.fromkeys(self._clients_of(isolated), failure)
        return ValidReplies([reply], failures | self._failures)

    def _without_reply(self, failure: Failure) -> ValidReplies[TrainReply]:
        clients = self._clients_of(range(len(self._nodes)))
        return ValidReplies([], dict.fromkeys(clients, failure) | self._failures)

    def _sum(self) -> TrainReply:
        """Perform the four exchanges."""
        coordinator = self._coordinator
        self._require_enough(self._cohort)
        advertise = {
            place: AdvertiseRequest(place, coordinator.threshold)
            for place in range(len(self._nodes))
        }
        public_keys = self._exchange(advertise, _read_keys)
        neighbour_keys = coordinator.collect_keys(public_keys)
        share = {place: ShareRequest(keys) for place, keys in neighbour_keys.items()}
        ciphertexts = coordinator.collect_shares(self._exchange(share, _read_shares))
        mask = {
            place: MaskRequest(self._cohort, self._schema.row_weights, shares)
            for place, shares in ciphertexts.items()
        }
        contributions = self._exchange(mask, self._read_contribution)
        unmask = coordinator.add_vectors(contributions.items())
        self._require_enough(coordinator.num_clients)
        failures = dict(self._failures)
        vector = coordinator.unmask(self._exchange(unmask, _read_revealed))
        self._failures = failures  # nodes that are silent in the last exchange are in the sum
        return self._reply(vector)

    def _require_enough(self, num_clients: int) -> None:
        if num_clients < self._min_clients:
            raise TooFewClientsError(
                f"{num_clients} clients are left, and a sum needs {self._min_clients:g}"
            )

    def _reply(self, vector: Any) -> TrainReply:
        """Return the sum as the reply of one node."""
        decoded = self._settings.dequantize_sum(
            vector, self._cohort, self._schema.shapes, self._num_rows
        )
        if decoded.clipped:
            _LOG.warning(
                "%d values lay beyond secure_aggregation.clip_range=%g and were clipped: raise it, "
                "or lower the learning rates",
                decoded.clipped,
                self._settings.clip_range,
            )
        if decoded.replied != self._coordinator.num_clients:
            raise InvalidReplyError(
                FailureKind.MALFORMED,
                f"a sum over {decoded.replied} clients, but its nodes claim "
                f"{self._coordinator.num_clients}",
            )
        clients = set(self._clients_of(self._coordinator.masked))
        return TrainReply(
            weight=decoded.total.weight,
            loss=float("nan") if self._schema.statistics else decoded.loss,
            bytes_up=self._bytes_up,
            replied=decoded.replied,
            arrays={**decoded.total.tensors, ROW_WEIGHT: decoded.total.row_weight},
            num_rows={},
            failures={
                client: failure for client, failure in self._failures.items() if client in clients
            },
        )

    @property
    def _cohort(self) -> int:
        return sum(map(len, self._clients))

    @property
    def _num_rows(self) -> int:
        return self._schema.num_items if self._schema.row_weights else 0

    # --- one exchange -----------------------------------------------------------------------

    def _exchange(
        self,
        requests: Mapping[int, StageRequest],
        parse: Callable[[int, RecordDict], ContentT],
    ) -> dict[int, ContentT]:
        """Ask members and return the valid replies; note the failures of the other clients."""
        silent = Failure(FailureKind.SILENT, "its node did not answer in time")
        member_failures = dict.fromkeys(requests, silent)
        place_of = {self._nodes[place]: place for place in requests}
        messages = [self._message(place, request) for place, request in requests.items()]
        replies: dict[int, ContentT] = {}
        for message in self._dispatcher.exchange(messages):
            place = place_of.get(message.metadata.src_node_id)
            if place is None or place in replies:
                continue
            try:
                replies[place] = read_reply(message, partial(parse, place))
            except InvalidReplyError as error:
                member_failures[place] = error.failure
            else:
                self._bytes_up += payload_bytes(message.content) * len(self._clients[place])
        for place in requests.keys() - replies.keys():
            self._failures |= dict.fromkeys(self._clients[place], member_failures[place])
        return replies

    def _message(self, place: int, request: StageRequest) -> Message:
        """Write a request; the mask request is added to the request to train."""
        train_request = self._requests[place]
        if isinstance(request, MaskRequest):
            base = train_request.content
        else:
            base = self._dispatcher.address.header.without_parameters()
        content = request.to_record(base, self._session)
        node = self._nodes[place]
        group = train_request.metadata.group_id
        return self._dispatcher.address.message(content, node, TRAIN_MASKED, group)

    def _read_contribution(self, place: int, content: RecordDict) -> Contribution:
        """Read a masked vector, and note the failures of the node's clients."""
        reply = MaskReply.from_record(content)
        vector = reply.contribution.vector
        length = vector_length(self._schema.shapes, self._num_rows)
        expected = (self._settings.quantizer(self._cohort).dtype, (length,))
        if (vector.dtype, vector.shape) != expected:
            raise ValueError(f"a vector of {vector.dtype} {vector.shape}, not {expected}")
        if not reply.failures.keys() <= set(self._clients[place]):
            raise ValueError("it contains clients that were not asked")
        num_asked = len(self._clients[place])
        if not 0 <= reply.contribution.clients <= num_asked:
            raise ValueError(
                f"it contains {reply.contribution.clients} clients, and {num_asked} were asked"
            )
        self._failures |= reply.failures
        return reply.contribution

    def _clients_of(self, members: Iterable[int]) -> list[int]:
        return [client for member in sorted(members) for client in self._clients[member]]


def _read_keys(place: int, content: RecordDict) -> PublicKeys:
    del place
    return PublicKeys.from_record(content)


def _read_shares(place: int, content: RecordDict) -> Mapping[int, bytes]:
    del place
    return ShareReply.from_record(content).ciphertexts


def _read_revealed(place: int, content: RecordDict) -> RevealedShares:
    del place
    return RevealedShares.from_record(content)

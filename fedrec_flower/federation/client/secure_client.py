"""Secure aggregation on a node: handles one message per stage and keeps the state in between.

It is stored in the context that Flower keeps for each node and passes to the worker that serves the
node: in memory, never on a disk that nodes share. The last stage removes it. The state
of an unfinished session is overwritten by the next session.

A client is in at most one released sum of a round. Two sums of the same parameters would differ by
the updates of the clients that are in only one of them, so a single client could be exposed.
Therefore the node notes on its disk, before it reveals a share, that the round contains its
clients. If the round is tried again, by the same server or by a server that resumed from a
checkpoint after a crash, these clients are left out as "answered". New random draws would not help:
a client's own items stay the same. A session belongs to the job that it began with: the rules of
that job apply to its end, and the note is stored in the folder of its run.

Sums of different rounds are not protected from each other: cohorts that differ by few clients
reveal these clients. A server that departs from the protocol can still ask for the same parameters
twice, under the name of another run or under the number of the next round. See
`communication.secure_aggregation.secagg`.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from math import isnan
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedrec_flower.communication.schema import RequestHeader, TrainRequest
from fedrec_flower.communication.secure_aggregation.client import Member, RefusedError, Stage
from fedrec_flower.communication.secure_aggregation.messages import (
    AdvertiseRequest,
    MaskReply,
    MaskRequest,
    ReceivedRequest,
    ShareReply,
    ShareRequest,
    UnmaskRequest,
)
from fedrec_flower.communication.secure_aggregation.quantization import CohortSum
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.random import generator
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.node import Node
from fedrec_flower.federation.client.trainers import ExactTrainer

_STATE = "secure_aggregation"


def refuse_plain(node: Node) -> None:
    """Refuse to send an update that is not masked.

    Raises:
        RefusedError: if the run uses secure aggregation.
    """
    if isinstance(node.secure, SecAgg):
        raise RefusedError("an update in clear is asked for, but the run aggregates securely")


def serve(node: Node, content: RecordDict, state: RecordDict) -> RecordDict:
    """Handle the request of one stage.

    Args:
        node: the node.
        content: the request.
        state: the state that the node keeps between stages; modified.

    Returns:
        The content of the reply.

    Raises:
        RefusedError: if no honest server would send the request.
    """
    secure = node.secure
    if not isinstance(secure, SecAgg):
        raise RefusedError("a masked sum is asked for, but the run does not aggregate securely")
    request = ReceivedRequest.from_record(content)
    job = _digest(content)
    member = _restore_member(request, job, state, secure)
    asked: Mapping[str, Any] = {}
    if request.stage == AdvertiseRequest.stage:
        reply = member.public.to_record()
    elif request.stage == ShareRequest.stage:
        keys = ShareRequest.from_fields(request.fields).keys
        reply = ShareReply(member.share(keys)).to_record()
    elif request.stage == MaskRequest.stage:
        training = TrainRequest.from_record(content)
        reply = _mask(node, secure, member, MaskRequest.from_fields(request.fields), training)
        asked = {"asked": training.clients, "round": training.round}
    else:
        revealed = member.unmask(UnmaskRequest.from_fields(request.fields))
        node.store.mark_answered(*_masked_clients(state))
        reply = revealed.to_record()
    _store_member(member, {"session": request.session, "job": job, **asked}, state)
    return reply


def _mask(
    node: Node, secure: SecAgg, member: Member, request: MaskRequest, training: TrainRequest
) -> RecordDict:
    """Train the clients and return the masked sum of those that have not answered this round."""
    member.open(request.ciphertexts)
    clients, round_ = training.clients, training.round
    fresh = node.store.unanswered(clients, round_)
    result = CohortClient(node, fresh).train(training.arrays, training.config)
    if (total := result.total) is None:
        raise RefusedError("a masked sum is asked for, but the run sends no sums to be masked")
    trainer = node.trainer
    if isinstance(trainer, ExactTrainer) and not trainer.privacy.hides_rows:
        # Sums of statistics are not divided by their weight, so the true weight is not needed.
        total = replace(total, weight=result.replied * secure.client_weight)
    if not request.row_weights:
        total = replace(total, row_weight=np.zeros(0))
    loss = 0.0 if isnan(result.loss) else result.loss  # statistics have no loss
    summed = CohortSum(total, loss, result.replied, clipped=0)
    rng = generator(node.seed, "secure-rounding", round_, *clients[:1])
    vector = secure.quantize_sum(summed, len(clients), request.cohort, rng)
    answered = dict.fromkeys(set(clients) - set(fresh), Failure(FailureKind.ANSWERED))
    contribution = member.mask(vector, result.replied)
    return MaskReply(contribution, result.failures | answered).to_record()


def _restore_member(
    request: ReceivedRequest, job: str, state: RecordDict, secure: SecAgg
) -> Member:
    """Return the member of the request's session; a new one in the first stage."""
    if request.stage == AdvertiseRequest.stage:
        advertise = AdvertiseRequest.from_fields(request.fields)
        return Member.create(advertise.place, advertise.threshold, secure.rules)
    stored = state.config_records.get(_STATE, ConfigRecord())
    if stored.get("session") != request.session:
        raise RefusedError(f"stage {request.stage} is asked for in a session never begun")
    if stored.get("job") != job:
        raise RefusedError(f"stage {request.stage} is asked for by another job than the session")
    return Member.from_state(stored, secure.rules)


def _digest(content: RecordDict) -> str:
    return sha256(RequestHeader.from_record(content).job.encode()).hexdigest()


def _masked_clients(state: RecordDict) -> tuple[list[int], int]:
    """Return the clients that the node was asked about for its vector, and the round."""
    stored: Any = state.config_records[_STATE]
    return list(stored["asked"]), stored["round"]


def _store_member(member: Member, session: Mapping[str, Any], state: RecordDict) -> None:
    """Store the member's state for the next stage, or remove it after the last one."""
    if member.stage == Stage.OVER:
        del state.config_records[_STATE]
        return
    state.config_records[_STATE] = ConfigRecord({**member.state(), **session})

"""Secure aggregation on a node: a message per stage, and what the node must remember in between.

It is remembered in the state that Flower keeps for each node and hands to whichever worker serves
it: in memory, never on a disk that nodes share. The last stage empties it; a session that never
got there is overwritten by the next.

A client is in one released sum of a round at most. Two sums of the same parameters would differ by
the updates of the clients that are in one of them alone, and one client would be exposed. So the
node notes on its disk, before it reveals a share, that the round holds its clients. Where the round
is tried again, by the same server or after a crash by one that has gone back to a checkpoint, these
clients are left out as "answered". Fresh draws would not help: a client's own items stay the same.
A session belongs to the job that it began with: the rules of that job hold to its end, and the note
goes to the folder of its run.

Sums of different rounds are not kept apart: cohorts that differ by few clients tell of these.
A server that departs from the protocol can still ask about the same parameters twice: under the
name of another run, or under the number of the next round. See `secure_aggregation.wording`.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from math import isnan
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedrec_flower.communication.secure_aggregation.client import Member, RefusedError, Stage
from fedrec_flower.communication.secure_aggregation.messages import PublicKeys, Wanted
from fedrec_flower.communication.secure_aggregation.quantization import CohortSum
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.core.random import generator
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.node import Node
from fedrec_flower.federation.client.trainers import ExactTrainer

ACTION = "masked"  # messages of type "train.masked"

_STATE = "secure_aggregation"

Fields = Mapping[str, Any]


def refuse_plain(node: Node) -> None:
    """See to it that a node of a masked run tells nothing in clear.

    Raises:
        RefusedError: if the run is masked.
    """
    if isinstance(node.secure, SecAgg):
        raise RefusedError("an update in clear is asked for, but the run aggregates securely")


def serve(
    node: Node, config: Fields, request: Fields, parameters: list[NDArray[Any]], state: RecordDict
) -> RecordDict:
    """Pass one stage.

    Args:
        node: the node.
        config: as for training; `job` alone in the stages that do not train.
        request: `stage` and `session`, and what `strategies.masked` puts beside them.
        parameters: as for training; empty in the other stages.
        state: what the node remembers from stage to stage; changed.

    Raises:
        RefusedError: if the request is one that no honest server makes.
    """
    secure = node.secure
    if not isinstance(secure, SecAgg):
        raise RefusedError("a masked sum is asked for, but the run does not aggregate securely")
    member, content = _recalled(request, config, state, secure), RecordDict()
    said: dict[str, Any]
    if request["stage"] == "advertise":
        keys = member.public
        said = {"encryption": keys.encryption, "masking": keys.masking}
    elif request["stage"] == "share":
        pairs = map(PublicKeys, request["encryption"], request["masking"])
        encrypted = member.share(dict(zip(request["places"], pairs, strict=True)))
        said = {"places": list(encrypted), "values": list(encrypted.values())}
    elif request["stage"] == "mask":
        member.open(dict(zip(request["places"], request["values"], strict=True)))
        vector, replied, said = _trained(node, secure, config, request, parameters)
        part = member.mask(vector, replied)
        content["masked"] = ArrayRecord({"vector": Array(part.vector)})
        said |= {"replied": replied, "places": list(part.tags), "tags": list(part.tags.values())}
    else:
        revealed = member.unmask(_wanted(request))
        node.store.answer(*_in_vector(state))
        said = {"survivors": list(revealed.seeds), "seeds": list(revealed.seeds.values())}
        said |= {"dropouts": list(revealed.keys), "keys": list(revealed.keys.values())}
    content["said"] = ConfigRecord(said)
    _remember(member, request, config, state)
    return content


def _wanted(request: Fields) -> Wanted:
    return Wanted(
        frozenset(request["survivors"]),
        frozenset(request["dropouts"]),
        dict(zip(request["places"], request["clients"], strict=True)),
        dict(zip(request["places"], request["tags"], strict=True)),
    )


def _trained(
    node: Node, secure: SecAgg, config: Fields, request: Fields, parameters: list[NDArray[Any]]
) -> tuple[NDArray[Any], int, dict[str, Any]]:
    """The node's vector, in clear; how many clients it holds; and the lost ones, by kind alone."""
    clients, round_ = config["clients"], config["round"]
    fresh = node.store.unanswered(clients, round_)
    answer = CohortClient(node, fresh).train(parameters, dict(config))
    if (total := answer.total) is None:
        raise RefusedError("a masked sum is asked for, but the run sends no sums to be masked")
    trainer = node.trainer
    if isinstance(trainer, ExactTrainer) and not trainer.privacy.hides_rows:
        # Sums of statistics are not divided by their weight, so nobody needs the true one.
        total = replace(total, weight=answer.replied * secure.client_weight)
    if not request["rows"]:
        total = replace(total, row_weight=np.zeros(0))
    loss = 0.0 if isnan(answer.loss) else answer.loss  # statistics have none
    summed = CohortSum(total, loss, answer.replied, clipped=0)
    rng = generator(node.seed, "secure-rounding", round_, *clients[:1])
    lost = answer.lost | dict.fromkeys(set(clients) - set(fresh), "answered")
    reasons = [reason.partition(":")[0] for reason in lost.values()]
    vector = secure.encoded(summed, len(clients), request["cohort"], rng)
    return vector, answer.replied, {"clients": list(lost), "reasons": reasons}


def _recalled(request: Fields, config: Fields, state: RecordDict, secure: SecAgg) -> Member:
    """The member of the session that the request belongs to; a new one where it begins."""
    if request["stage"] == "advertise":
        return Member.fresh(request["place"], request["threshold"], secure.rules)
    kept = state.config_records.get(_STATE, ConfigRecord())
    if kept.get("session") != request["session"]:
        raise RefusedError(f"stage {request['stage']} is asked for in a session never begun")
    if kept.get("job") != _digest(config):
        raise RefusedError(f"stage {request['stage']} is asked for by another job than the session")
    return Member.restored(kept, secure.rules)


def _digest(config: Fields) -> str:
    return sha256(config["job"].encode()).hexdigest()


def _in_vector(state: RecordDict) -> tuple[list[int], int]:
    """The clients that the node was asked about when it made its vector, and the round."""
    kept: Any = state.config_records[_STATE]
    return list(kept["asked"]), kept["round"]


def _remember(member: Member, request: Fields, config: Fields, state: RecordDict) -> None:
    if member.stage == Stage.OVER:
        del state.config_records[_STATE]
        return
    kept = member.state() | {"session": request["session"], "job": _digest(config)}
    if member.stage == Stage.UNMASK:
        kept |= {"asked": list(config["clients"]), "round": config["round"]}
    state.config_records[_STATE] = ConfigRecord(kept)

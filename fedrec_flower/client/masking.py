"""Secure aggregation on a node: a message per stage, and what the node must remember in between.

It is remembered in the state that Flower keeps for each node and hands to whichever worker serves
it: in memory, never on a disk that nodes share. The last stage empties it; a session that never
got there is overwritten by the next.
"""

from collections.abc import Mapping
from math import isnan
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray

from fedrec_flower.client.cohort_client import CohortClient
from fedrec_flower.client.node import Node
from fedrec_flower.secure_aggregation import (
    CohortSum,
    Member,
    PublicKeys,
    RefusedError,
    SecAgg,
    Stage,
    Wanted,
)
from fedrec_flower.seeding import generator

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
        config: as for training; needed by the stage that trains.
        request: `stage` and `session`, and what `strategies.masked` puts beside them.
        parameters: as for training; empty in the other stages.
        state: what the node remembers; changed.

    Raises:
        RefusedError: if the request is one that no honest server makes.
    """
    member, content = _recalled(request, state), RecordDict()
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
        vector, said = _trained(node, config, request["cohort"], parameters)
        content["masked"] = ArrayRecord({"vector": Array(member.mask(vector))})
    else:
        told = member.unmask(_wanted(request))
        said = {"survivors": list(told.seeds), "seeds": list(told.seeds.values())}
        said |= {"dropouts": list(told.keys), "keys": list(told.keys.values())}
    content["said"] = ConfigRecord(said)
    _remember(member, request, state)
    return content


def _wanted(request: Fields) -> Wanted:
    return Wanted(frozenset(request["survivors"]), frozenset(request["dropouts"]))


def _trained(
    node: Node, config: Fields, cohort: int, parameters: list[NDArray[Any]]
) -> tuple[NDArray[Any], dict[str, Any]]:
    """The node's vector, in clear, and whom it says to be lost: kinds, no details."""
    clients = config["clients"]
    answer = CohortClient(node, clients).train(parameters, dict(config))
    if answer.total is None or not isinstance(node.secure, SecAgg):
        raise RefusedError("a masked sum is asked for, but the run sends no sums to be masked")
    loss = 0.0 if isnan(answer.loss) else answer.loss  # statistics have none
    said = CohortSum(answer.total, loss, answer.replied, clipped=0)
    rng = generator(node.seed, "secure-rounding", config["round"], clients[0])
    reasons = [reason.partition(":")[0] for reason in answer.lost.values()]
    lost = {"clients": list(answer.lost), "reasons": reasons}
    return node.secure.encoded(said, len(clients), cohort, rng), lost


def _recalled(request: Fields, state: RecordDict) -> Member:
    """The member of the session that the request belongs to; a new one where it begins."""
    if request["stage"] == "advertise":
        return Member.fresh(request["place"], request["threshold"])
    kept = state.config_records.get(_STATE, ConfigRecord())
    if kept.get("session") != request["session"]:
        raise RefusedError(f"stage {request['stage']} is asked for in a session never begun")
    return Member.restored(kept)


def _remember(member: Member, request: Fields, state: RecordDict) -> None:
    if member.stage == Stage.OVER:
        del state.config_records[_STATE]
        return
    kept = member.state() | {"session": request["session"]}
    state.config_records[_STATE] = ConfigRecord(kept)

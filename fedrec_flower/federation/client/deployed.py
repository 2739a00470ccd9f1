"""The ClientApp of a real federation: what a node does is decided on its own machine.

Its data, its files and its rules come from the `--node-config` that its owner starts it with, and
none of them from a message:

| key | meaning |
|---|---|
| `partition-id`, `num-partitions` | which clients it hosts |
| `prepared` | folder of the prepared data, the same data as the server's |
| `store` | folder for what stays with its clients, and for the node's secret: reports at random |
|  | and pseudo items are the same in all runs, all other draws differ from run to run |
| `plugins` | packages whose classes a job may name, separated by commas; none by default |
| `require-secure-aggregation` | true: never send a training sum in clear; evaluation sums are in |
|  | clear and exact, of as few clients as the server names |
| `min-clients`, `min-nodes` | refuse secure aggregation that releases sums over fewer |
| `max-epsilon` | refuse jobs that spend more of a client, by `local_dp` over all rounds of a |
|  | run, or of a user, by `randomized_response` over all runs; and all other jobs |
| `max-delta` | with `max-epsilon`: the delta at which epsilon is computed, whatever the job says; |
|  | by default 1 / number of clients in the prepared data |

Under `max-epsilon` and `local_dp` the node counts the answers of each client on its disk, retries
and repeated requests among them, and refuses more than the job has rounds. It refuses other noise
in the same run. A run of another name is counted by itself: what a client spends in several runs
adds up. Under `randomized_response` the node keeps the first settings for all runs, because a
report costs once. Other prepared data make other reports, which cost again.

Whoever may start runs on the SuperLink ships code to the nodes, and that code can do anything. The
rules hold against jobs, not against another ClientApp.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrec_flower.communication.schema import MASKED_ACTION, read_config
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.core.errors import require
from fedrec_flower.core.files import child_path
from fedrec_flower.core.instantiate import build, trust
from fedrec_flower.core.updates import HUGE
from fedrec_flower.data.prepared import MANIFEST, Prepared
from fedrec_flower.federation.client import handlers
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.client.state_store import keep_first
from fedrec_flower.federation.client.trainers import ExactTrainer
from fedrec_flower.privacy.accounting import LEAST_DELTA
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.randomized_response import RandomizedResponse

app = ClientApp()

_OWN = ("prepared", "store")  # what a job must not say
# What a job says of the tools of a laboratory: that there are none.
_NONE = {"attack": "fedrec_flower.threats.NoAttack", "faults": "fedrec_flower.threats.NoFaults"}


@app.query()
def query(message: Message, context: Context) -> Message:
    """See `handlers.query`."""
    return handlers.query(node_of(message, context), message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """See `handlers.train`."""
    return handlers.train(node_of(message, context), message, context)


@app.train(MASKED_ACTION)
def train_masked(message: Message, context: Context) -> Message:
    """See `handlers.train_masked`."""
    return handlers.train_masked(node_of(message, context), message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """See `handlers.evaluate`."""
    return handlers.evaluate(node_of(message, context), message, context)


def node_of(message: Message, context: Context) -> Node:
    """The node that does what a message asks for.

    Raises:
        ConfigError: if the node is not set up, or its rules forbid the job; one sentence, which
            the server is told.
    """
    handlers.use_one_thread()
    config = read_config(message.content)
    _refuse_fields(json.loads(config["job"]), config)
    return _opened(config["job"], tuple(context.node_config.items()))


@lru_cache(maxsize=2)
def _opened(told: str, known: tuple[tuple[str, Any], ...]) -> Node:
    job, own = json.loads(told), dict(known)
    trust(str(own.get("plugins", "")))
    _refuse_other_data(job, folder := _folder(own, "prepared"))
    _refuse_seeds(job)
    _refuse_by_rule(job, own)
    # Personal parameters of one run are no start for another. The secret is the node's: a client
    # that answers at random must give the same answer to every run.
    kept = _folder(own, "store", create=True)
    store = child_path(kept, job["run"])
    place = {"prepared": str(folder), "store": str(store), "kept": str(kept), "deployed": True}
    if (most_epsilon := own.get("max-epsilon")) is None:
        return open_node(json.dumps(job | place | {"most_answers": None}))
    privacy = build("privacy", job["privacy"])
    answers = job["num_rounds"] if isinstance(privacy, LocalDP) else None
    node = open_node(json.dumps(job | place | {"most_answers": answers}))
    delta = float(own.get("max-delta", 1 / node.data.num_clients))
    _refuse_epsilon(node, job, privacy, float(most_epsilon), delta)
    _refuse_other_terms(node, kept, privacy)
    return node


def _folder(own: Mapping[str, Any], name: str, *, create: bool = False) -> Path:
    value = own.get(name)
    require(
        isinstance(value, str) and bool(value),
        f"the node has no {name}: start it with --node-config '... {name}=\"/path/to/{name}\"'",
    )
    folder = Path(str(value)).expanduser().absolute()
    if create:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _refuse_other_data(job: Mapping[str, Any], folder: Path) -> None:
    require(
        (folder / MANIFEST).is_file(),
        f"the node's prepared={folder.name} holds no prepared data: name a folder below "
        "prepared/ of a dataset.cache_dir",
    )
    held, wanted = Prepared(folder).digest, job["data"]
    require(
        held == wanted,
        f"the node holds other data ({held}) than the server ({wanted}): prepare both from the "
        "same files with the same dataset, split, partition and seed",
    )


def _refuse_fields(job: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    told = [*(name for name in _OWN if name in job), *(["place"] if "place" in config else [])]
    require(
        not told,
        f"the server says {told[:1]}, which a node knows by its own --node-config: run the same "
        "version of the code on both sides",
    )
    round_, last = config.get("round", 0), job["num_rounds"]
    require(round_ <= last, f"round {round_} is asked for, and the job has {last} rounds")


def _refuse_seeds(job: Mapping[str, Any]) -> None:
    """Refuse randomness that the server knows, and what belongs into a simulation."""
    require(
        job["randomness"] == "private",
        f"randomness={job['randomness']} would let the server know what clients draw, their noise "
        "included: a deployed node accepts randomness=private alone",
    )
    for group, target in _NONE.items():
        require(
            job[group]["_target_"] == target,
            f"{group}={job[group].get('name')} belongs to simulations: a deployed node accepts "
            f"{group}=none alone",
        )


def _refuse_by_rule(job: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    most = job["limits"]["weight"]
    secure = build("secure_aggregation", job["secure_aggregation"], client_weight=most)
    masked = isinstance(secure, SecAgg)
    require(
        masked or not own.get("require-secure-aggregation", False),
        "the node requires secure aggregation, and the run has none: choose "
        "secure_aggregation=secagg",
    )
    for rule in ("min-clients", "min-nodes") if masked else ():
        name = rule.replace("-", "_")
        require(
            getattr(secure, name) >= int(own.get(rule, 0)),
            f"the node allows secure_aggregation.{name} from {own.get(rule)} on, and the run has "
            f"{getattr(secure, name)}: raise it",
        )


def _refuse_epsilon(
    node: Node, job: Mapping[str, Any], privacy: object, most: float, delta: float
) -> None:
    """Refuse a job by which a client, or a user, spends more than the node's owner allows."""
    require(
        LEAST_DELTA <= delta < 1,
        f"the node's max-delta={delta:g} is impossible: give {LEAST_DELTA:g} or more, below 1",
    )
    epsilon = _spent(privacy, job["num_rounds"], delta)
    require(
        epsilon <= most,
        f"the node allows epsilon {most:g} at most, at delta {delta:g}, and the run spends "
        f"{epsilon:g} of each client: choose privacy=local_dp with a lower target_epsilon",
    )
    # What the server checks of an honest run, and by which a job could avoid the noise.
    exact = isinstance(node.trainer, ExactTrainer)
    require(
        exact == isinstance(privacy, RandomizedResponse),
        "the node limits epsilon, and the job's privacy does not fit its model: choose "
        "privacy=randomized_response for exact models, and privacy=local_dp for others",
    )
    require(
        not job["stacked"],
        "the node limits epsilon, and updates that are sent one by one have no noise: choose a "
        "strategy that averages, such as fedadam",
    )
    require(
        job["limits"]["value"] >= HUGE,
        f"the node limits epsilon, and limits.value={job['limits']['value']:g} would tell which "
        f"clients exceed it: a run has {HUGE:g}",
    )


def _spent(privacy: object, num_rounds: int, delta: float) -> float:
    """The epsilon that is spent after the last round, against the server itself."""
    if isinstance(privacy, LocalDP):
        return replace(privacy, delta=delta).epsilon(num_rounds)
    return privacy.epsilon if isinstance(privacy, RandomizedResponse) else inf


def _refuse_other_terms(node: Node, kept: Path, privacy: object) -> None:
    """Refuse what would cost more than the terms by which clients have answered already."""
    terms: dict[str, Any]
    if isinstance(privacy, LocalDP):
        path = node.store.folder / "local_dp.json"
        terms = {"mechanism": privacy.mechanism, "noise_multiplier": privacy.noise_multiplier}
    elif isinstance(privacy, RandomizedResponse):
        path = kept / "randomized_response.json"
        terms = {"epsilon": privacy.epsilon, "max_items": privacy.max_items}
        terms |= {"num_items": node.data.num_items}
    else:
        return
    first = keep_first(path, terms)
    require(
        first == terms,
        f"clients of the node have answered by {first}, and the job has {terms}: the node limits "
        "epsilon, so keep the settings of the first job",
    )

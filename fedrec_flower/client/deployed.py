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
| `max-epsilon` | refuse jobs whose clients do not protect themselves at least so well, by |
|  | `local_dp` or `randomized_response`, over all rounds of a run |

Whoever may start runs on the SuperLink ships code to the nodes, and that code can do anything. The
rules hold against jobs, not against another ClientApp.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedrec_flower.client import masking, serving
from fedrec_flower.client.node import Node, open_node
from fedrec_flower.config import build, trust
from fedrec_flower.errors import require
from fedrec_flower.prepared import MANIFEST, Prepared
from fedrec_flower.privacy import LocalDP, RandomizedResponse
from fedrec_flower.secure_aggregation import SecAgg
from fedrec_flower.writing import inside

app = ClientApp()

_OWN = ("prepared", "store")  # what a job must not say
# What a job says of the tools of a laboratory: that there are none.
_NONE = {"attack": "fedrec_flower.attacks.NoAttack", "faults": "fedrec_flower.faults.NoFaults"}


@app.query()
def query(message: Message, context: Context) -> Message:
    """See `serving.query`."""
    return serving.query(node_of(message, context), message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """See `serving.train`."""
    return serving.train(node_of(message, context), message, context)


@app.train(masking.ACTION)
def train_masked(message: Message, context: Context) -> Message:
    """See `serving.train_masked`."""
    return serving.train_masked(node_of(message, context), message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """See `serving.evaluate`."""
    return serving.evaluate(node_of(message, context), message, context)


def node_of(message: Message, context: Context) -> Node:
    """The node that does what a message asks for.

    Raises:
        ConfigError: if the node is not set up, or its rules forbid the job; one sentence, which
            the server is told.
    """
    serving.use_one_thread()
    config = serving.config_of(message)
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
    store = inside(kept, job["run"])
    place = {"prepared": str(folder), "store": str(store), "kept": str(kept), "deployed": True}
    return open_node(json.dumps(job | place))


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
    if (most_epsilon := own.get("max-epsilon")) is not None:
        epsilon = _spent(build("privacy", job["privacy"]), job["num_rounds"])
        require(
            epsilon <= float(most_epsilon),
            f"the node allows epsilon {most_epsilon:g} at most, and the run spends {epsilon:g} of "
            "each client: choose privacy=local_dp with a lower target_epsilon",
        )


def _spent(privacy: object, num_rounds: int) -> float:
    """The epsilon that a client has spent after the last round, against the server itself."""
    if isinstance(privacy, LocalDP):
        return privacy.epsilon(num_rounds)
    return privacy.epsilon if isinstance(privacy, RandomizedResponse) else inf

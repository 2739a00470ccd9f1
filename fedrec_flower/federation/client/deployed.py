"""The ClientApp of a deployment: the owner of a node decides what it does.

Its data, its files and its rules come from the `--node-config` with which its owner starts it.
None of them comes from a message:

| key | meaning |
|---|---|
| `partition-id`, `num-partitions` | decide which clients the node hosts |
| `prepared` | folder of the prepared data, the same data as the server's |
| `store` | folder of the clients' personal state and of the node's secret. Reports of |
|  | randomized response and pseudo items are the same in all runs; all other draws |
|  | differ from run to run |
| `plugins` | packages whose classes a job may name, separated by commas; none by default |
| `require-secure-aggregation` | true: never send a training sum in clear. Evaluation sums are in |
|  | clear and exact, over as few clients as the server names |
| `min-clients`, `min-nodes` | refuse secure aggregation that releases sums over fewer |
| `max-epsilon` | refuse jobs with a larger epsilon per client (`local_dp`, over all rounds of |
|  | a run) or per user (`randomized_response`, over all runs), and jobs without one |
| `max-delta` | with `max-epsilon`: the delta at which epsilon is computed, instead of the |
|  | job's; by default 1 / number of clients in the prepared data |

With `max-epsilon` and `local_dp`, the node counts the answers of each client on its disk, including
retries and repeated requests, and refuses more answers than the job has rounds. It also refuses a
different noise in the same run. A run of another name is counted separately: the epsilons of
several runs add up. With `randomized_response`, the node keeps the first settings for all runs,
because a report is paid for once. Other prepared data lead to other reports, with a new cost.

A user who may start runs on the SuperLink sends code to the nodes, and that code can do anything.
The rules protect against jobs, not against another ClientApp.
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
from fedrec_flower.core.instantiate import locate, trust
from fedrec_flower.core.updates import HUGE
from fedrec_flower.data.prepared import MANIFEST, Prepared
from fedrec_flower.federation.client import handlers
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.client.state_store import keep_first
from fedrec_flower.federation.client.trainers import ExactTrainer
from fedrec_flower.federation.components import build_privacy, build_secure_aggregation
from fedrec_flower.federation.job import NodeJob, NodePlace
from fedrec_flower.privacy.accounting import LEAST_DELTA
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.privacy.randomized_response import RandomizedResponse
from fedrec_flower.threats.base import NoAttack
from fedrec_flower.threats.faults import NoFaults

app = ClientApp()

# The only classes that a job may have in the groups of simulations.
_SIMULATION_GROUPS = {"attack": NoAttack, "faults": NoFaults}
_OWNER_FIELDS = ("prepared", "store")  # only the owner's --node-config may set them


@app.query()
def query(message: Message, context: Context) -> Message:
    """Reply with the hosted clients."""
    return handlers.query(node_of(message, context), message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train clients."""
    return handlers.train(node_of(message, context), message, context)


@app.train(MASKED_ACTION)
def train_masked(message: Message, context: Context) -> Message:
    """Handle one stage of secure aggregation."""
    return handlers.train_masked(node_of(message, context), message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate clients."""
    return handlers.evaluate(node_of(message, context), message, context)


def node_of(message: Message, context: Context) -> Node:
    """Return the node for a message's job, after checking the job against the node's rules.

    Raises:
        ConfigError: if the node is not configured, or its rules forbid the job. The server sees the
            text, which is one sentence.
    """
    handlers.use_one_thread()
    config = read_config(message.content)
    _check_owner_fields(json.loads(config["job"]), config)
    node_config = tuple(context.node_config.items())
    node, num_rounds = _open(config["job"], node_config)
    round_ = config.get("round", 0)
    require(
        round_ <= num_rounds, f"round {round_} is asked for, and the job has {num_rounds} rounds"
    )
    return node


@lru_cache(maxsize=2)
def _open(text: str, items: tuple[tuple[str, Any], ...]) -> tuple[Node, int]:
    """Return the node of a job, and the job's number of rounds."""
    node_config = dict(items)
    trust(str(node_config.get("plugins", "")))
    job = NodeJob.from_json(text)
    prepared = _folder(node_config, "prepared")
    _check_data(job, prepared)
    _check_randomness(job)
    _check_secure_aggregation(job, node_config)
    # Each run has its own personal parameters. The secret belongs to the node: a client with
    # randomized response must give the same report in every run.
    secret_folder = _folder(node_config, "store", create=True)
    place = NodePlace(
        prepared=str(prepared),
        store=str(child_path(secret_folder, job.run)),
        secret_folder=str(secret_folder),
        deployed=True,
    )
    max_epsilon = node_config.get("max-epsilon")
    if max_epsilon is None:
        return open_node(text, place), job.num_rounds
    privacy = build_privacy(job.privacy)
    max_answers = job.num_rounds if isinstance(privacy, LocalDP) else None
    node = open_node(text, replace(place, max_answers=max_answers))
    delta = float(node_config.get("max-delta", 1 / node.data.num_clients))
    _check_epsilon(node, job, privacy, float(max_epsilon), delta)
    _check_first_settings(node, secret_folder, privacy)
    return node, job.num_rounds


def _folder(node_config: Mapping[str, Any], name: str, *, create: bool = False) -> Path:
    value = node_config.get(name)
    require(
        isinstance(value, str) and bool(value),
        f"the node has no {name}: start it with --node-config '... {name}=\"/path/to/{name}\"'",
    )
    folder = Path(str(value)).expanduser().absolute()
    if create:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _check_owner_fields(job: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuse a message that names a path of the node."""
    named = [name for name in _OWNER_FIELDS if name in job]
    if "place" in config:
        named.append("place")
    require(
        not named,
        f"the server sends {named[:1]}, which only the --node-config of a node may set: run the "
        "same version of the code on both sides",
    )


def _check_data(job: NodeJob, folder: Path) -> None:
    """Check that the node has the server's data."""
    require(
        (folder / MANIFEST).is_file(),
        f"the node's prepared={folder.name} holds no prepared data: name a folder below "
        "prepared/ of a dataset.cache_dir",
    )
    digest = Prepared(folder).digest
    require(
        digest == job.data,
        f"the node holds other data ({digest}) than the server ({job.data}): prepare both from the "
        "same files with the same dataset, split, partition and seed",
    )


def _check_randomness(job: NodeJob) -> None:
    """Refuse randomness that the server knows, and objects that belong to simulations."""
    require(
        job.randomness == "private",
        f"randomness={job.randomness} would let the server know what clients draw, including "
        "their noise: a deployed node accepts only randomness=private",
    )
    for group, allowed in _SIMULATION_GROUPS.items():
        config = getattr(job, group)
        require(
            locate(group, config.get("_target_", "")) is allowed,
            f"{group}={config.get('name')} belongs to simulations: a deployed node accepts only "
            f"{group}=none",
        )


def _check_secure_aggregation(job: NodeJob, node_config: Mapping[str, Any]) -> None:
    """Check secure aggregation against the rules of the owner."""
    secure = build_secure_aggregation(job.secure_aggregation, job.limits.weight)
    masked = isinstance(secure, SecAgg)
    require(
        masked or not node_config.get("require-secure-aggregation", False),
        "the node requires secure aggregation, and the run has none: choose "
        "secure_aggregation=secagg",
    )
    for rule in ("min-clients", "min-nodes") if masked else ():
        name = rule.replace("-", "_")
        minimum = node_config.get(rule, 0)
        require(
            getattr(secure, name) >= int(minimum),
            f"the node allows secure_aggregation.{name} from {minimum} on, and the run has "
            f"{getattr(secure, name)}: raise it",
        )


def _check_epsilon(
    node: Node, job: NodeJob, privacy: PrivacyMechanism, max_epsilon: float, delta: float
) -> None:
    """Refuse a job with a larger epsilon, per client or user, than the owner allows."""
    require(
        LEAST_DELTA <= delta < 1,
        f"the node's max-delta={delta:g} is impossible: give {LEAST_DELTA:g} or more, below 1",
    )
    epsilon = _epsilon(privacy, job.num_rounds, delta)
    require(
        epsilon <= max_epsilon,
        f"the node allows epsilon {max_epsilon:g} at most, at delta {delta:g}, and the run spends "
        f"{epsilon:g} of each client: choose privacy=local_dp with a lower target_epsilon",
    )
    # An honest server checks the following too. Without them, a job could avoid the noise.
    closed_form = isinstance(node.trainer, ExactTrainer)
    require(
        closed_form == isinstance(privacy, RandomizedResponse),
        "the node limits epsilon, and the job's privacy does not fit its model: choose "
        "privacy=randomized_response for closed-form models, and privacy=local_dp for others",
    )
    require(
        not job.individual_updates,
        "the node limits epsilon, and individual updates have no noise: choose a strategy that "
        "averages, such as fedadam",
    )
    require(
        job.limits.value >= HUGE,
        f"the node limits epsilon, and limits.value={job.limits.value:g} would reveal which "
        f"clients exceed it: a run has {HUGE:g}",
    )


def _epsilon(privacy: PrivacyMechanism, num_rounds: int, delta: float) -> float:
    """Return the epsilon after the last round, against the server itself."""
    if isinstance(privacy, LocalDP):
        return replace(privacy, delta=delta).epsilon(num_rounds)
    if isinstance(privacy, RandomizedResponse):
        return privacy.epsilon
    return inf


def _check_first_settings(node: Node, secret_folder: Path, privacy: PrivacyMechanism) -> None:
    """Refuse settings that differ from those with which clients have already answered."""
    settings: dict[str, Any]
    if isinstance(privacy, LocalDP):
        path = node.store.folder / "local_dp.json"
        settings = {"mechanism": privacy.mechanism, "noise_multiplier": privacy.noise_multiplier}
    elif isinstance(privacy, RandomizedResponse):
        path = secret_folder / "randomized_response.json"
        settings = {
            "epsilon": privacy.epsilon,
            "max_items": privacy.max_items,
            "num_items": node.data.num_items,
        }
    else:
        return
    first = keep_first(path, settings)
    require(
        first == settings,
        f"clients of the node have answered with {first}, and the job has {settings}: the node "
        "limits epsilon, so keep the settings of the first job",
    )

"""One experiment, from configuration to run folder: read `run` first, it is the whole story."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from flwr.serverapp import Grid

from fedrec_flower import __version__
from fedrec_flower.communication.limits import Limits
from fedrec_flower.core.cpu import allowed_cores
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import HUGE
from fedrec_flower.data.partitions.statistics import partition_table
from fedrec_flower.data.prepare import prepare
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.splits.base import split_sha256
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.evaluation.metric_sums import Bounds
from fedrec_flower.experiment import compatibility as checking
from fedrec_flower.experiment.artifacts import publish
from fedrec_flower.experiment.callbacks import Progress
from fedrec_flower.experiment.privacy_audit import RunScene, check_attack, spy
from fedrec_flower.experiment.privacy_setup import Guard
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.shadow_federations import Shadows
from fedrec_flower.experiment.summary import Record
from fedrec_flower.experiment.transfer import SavedModel, taken_over
from fedrec_flower.federation.server.loop import FederatedStrategy
from fedrec_flower.federation.server.plan import Outcome, Plan, Unobserved
from fedrec_flower.federation.transport.base import Engine, federate
from fedrec_flower.federation.transport.in_process import InProcess
from fedrec_flower.models.base import Recommender
from fedrec_flower.privacy.mechanism import Curator
from fedrec_flower.threats.base import NoAttack

_LOG = logging.getLogger(__name__)

Config = Mapping[str, Any]


def run(
    config: Config, folder: RunFolder, engine: Engine | None = None, *, grid: Grid | None = None
) -> dict[str, Any]:
    """Run an experiment and fill its folder.

    Args:
        config: the resolved configuration: a mapping per group, and the values no group owns.
        folder: the run's folder, new; or that of an unfinished run of the same configuration,
            which goes on from its last checkpoint (see `results.resume`).
        engine: takes the place of the one that the configuration describes.
        grid: what a deployment's messages go through; None in a simulation.

    Returns:
        The summary, as in summary.json.

    Raises:
        FedrecError: a mistake that the user can mend; the folder keeps what it had.
    """
    saved = folder.checkpoints.newest()
    with Record(folder, config, saved) as record:
        setup = set_up(config, folder, grid)
        record.learn(setup.facts())
        with Progress(folder, setup.plan, record) as progress:
            strategy = build("strategy", config["strategy"], plan=setup.plan, observer=progress)
            checking.check_centralized(config, setup.data)
            checking.check_strategy(strategy, setup.model)
            setup.guard.check(strategy)
            check_attack(setup.attack, strategy, setup.model, setup.data)
            if saved is not None:
                folder.checkpoints.restore(saved)
                strategy.resume(saved)
            log = folder.path / "flower.log"
            initial = setup.initial(strategy)
            outcome = federate(engine or setup.engine, strategy, initial, log)
        kept = folder.path / "clients"
        shadows = Shadows(config, setup.data, run_quietly)
        scene = RunScene(setup.data, setup.guard, strategy, outcome, initial, kept, shadows)
        record.learn(spy(setup.attack, scene))
        publish(record, setup.data, outcome, setup.attack, deployed=grid is not None)
    folder.tidy()
    return record.summary


@dataclass(frozen=True, slots=True)
class Setup:
    """What is known before the first round.

    Attributes:
        data: the prepared data.
        model: the recommender, without users.
        plan: the run, as the strategy sees it.
        engine: carries messages.
        num_nodes: how many nodes host the clients; 0 in a deployment, whose nodes say it.
        seed: the experiment's seed.
        source: what another run has learnt, to start from; None to start afresh.
        guard: what protects the clients.
        attack: who poisons them or spies on them.
        left_out: what the evaluation leaves out because the data cannot support it.
    """

    data: Prepared
    model: Recommender
    plan: Plan
    engine: Engine
    num_nodes: int
    seed: int
    source: SavedModel | None
    guard: Guard
    attack: NoAttack
    left_out: list[str]

    def initial(self, strategy: FederatedStrategy) -> Tensors:
        """Initial shared parameters, drawn or another run's; none where nothing travels."""
        names = self.model.shared_names() if strategy.shares else []
        drawn = self.model.initial(names, generator(self.seed, "initial-shared"))
        if self.source is None:
            return drawn
        return taken_over(drawn, self.source, self.data.item_ids, self.model.item_rows)

    def facts(self) -> dict[str, Any]:
        """What the summary says of the data."""
        return {
            "num_clients": self.data.num_clients,
            "num_users": self.data.num_users,
            "num_items": self.data.num_items,
            "split_sha256": self.data.split_sha256,
            **self.guard.facts(),
            **({"left_out": self.left_out} if self.left_out else {}),
        }


def run_quietly(config: Config, data: Prepared, folder: RunFolder) -> Outcome:
    """Run a federation in this process, on prepared data, without checks, tables or a bar.

    Args:
        config: the resolved configuration; data, engine and number of nodes are not taken from it.
        data: the prepared data.
        folder: for what the clients keep, and Flower's log.
    """
    setup = set_up(config, folder, data=data)
    strategy = build("strategy", config["strategy"], plan=setup.plan, observer=Unobserved())
    engine = InProcess(setup.num_nodes)
    return federate(engine, strategy, setup.initial(strategy), folder.path / "flower.log")


def set_up(
    config: Config,
    folder: RunFolder,
    grid: Grid | None = None,
    *,
    data: Prepared | None = None,
) -> Setup:
    """Prepare the data, build the model, check that what is asked for is possible.

    Args:
        config: see `run`.
        folder: see `run`.
        grid: see `run`; with one, the noise of privacy comes from the operating system.
        data: takes the place of the data that the configuration describes.
    """
    checking.check_numbers(config)
    checking.check_deployment(config, deployed=grid is not None)
    data = prepare_data(config) if data is None else data
    known = {
        "num_users": 1,  # the server has no users; personal tables live on the nodes
        "num_items": data.num_items,
        "rating_range": data.rating_range,
        "item_features": data.item_features,
        "num_attributes": data.num_attributes,
        "task": config["task"],
    }
    model: Recommender = build("model", config["model"], **known)
    source = read_source(config, model)
    model.freeze(config["freeze"])
    config, evaluator, left_out = fit_evaluation(config, data, known)
    checking.check(config, data, model, evaluator)
    guard = Guard.of(config, data, model, deployed=grid is not None)
    attack: NoAttack = build(
        "attack", config["attack"], seed=config["seed"], data=data, model=model
    )
    curator = guard.curator(folder.path, source)
    deployed = grid is not None
    plan = make_plan(config, data, model, evaluator, folder, guard, curator, deployed=deployed)
    if grid is None:
        nodes = _num_nodes(config, data)
        plan.secure.check(nodes, plan.clients_per_round)
        engine = build("federation", {**config["federation"], "num_nodes": nodes})
    else:
        nodes = 0  # which nodes there are, they say themselves
        engine = build("federation", config["federation"], grid=grid)
    return Setup(data, model, plan, engine, nodes, config["seed"], source, guard, attack, left_out)


def fit_evaluation(
    config: Config, data: Prepared, known: Mapping[str, Any]
) -> tuple[Config, Evaluator, list[str]]:
    """Leave out of the evaluation what the data cannot support, and say so in the log.

    Args:
        config: see `run`.
        data: the prepared data.
        known: what the run knows beside the configuration; see `config.build`.

    Returns:
        The configuration of the evaluation that is carried out, that evaluation, and one sentence
        on each setting that changed.
    """
    asked: Evaluator = build("evaluation", config["evaluation"], **known)
    fitted, left_out = asked.fitted(data.num_items, data.max_seen_items)
    for sentence in left_out:
        _LOG.warning("%s", sentence)
    changed = {name: getattr(fitted, name, value) for name, value in config["evaluation"].items()}
    return {**config, "evaluation": changed}, fitted, left_out


def _num_nodes(config: Config, data: Prepared) -> int:
    """How many nodes a simulation has: one per core, unless the configuration says."""
    asked = config["federation"].get("num_nodes")
    nodes = min(allowed_cores(), data.num_clients) if asked is None else asked
    checking.check_nodes(nodes, data)
    return int(nodes)


def read_source(config: Config, model: Recommender) -> SavedModel | None:
    """What another run has learnt, if this one starts from it.

    Raises:
        ConfigError: if it cannot be read, or the model starts from nothing and trains nothing.
    """
    checking.check_source(config, model)
    return SavedModel.read(config["init_from"]) if config["init_from"] else None


def prepare_data(config: Config) -> Prepared:
    """Load, split and partition the data, or open what an earlier run prepared the same way."""
    dataset = build("dataset", config["dataset"])
    splitter = build("split", config["split"])
    partitioner = build("partition", config["partition"])
    seed = config["seed"]

    def load_and_split() -> tuple[Any, ...]:
        interactions = dataset.load()
        split = splitter.split(interactions, seed)
        partition = partitioner.assign(interactions, split, seed)
        table = partition_table(interactions, split, partition)
        return interactions, split, partition, split_sha256(interactions, split), table

    cache_key = {
        "version": __version__,  # a later version may read the same files in another way
        "dataset": dataset.fingerprint(),
        "split": dict(config["split"]),
        "partition": dict(config["partition"]),
        "seed": seed,
    }
    return prepare(dataset.cache_path, cache_key, load_and_split)


def make_plan(
    config: Config,
    data: Prepared,
    model: Recommender,
    evaluator: Evaluator,
    folder: RunFolder,
    guard: Guard,
    curator: Curator,
    *,
    deployed: bool,
) -> Plan:
    """Turn the configuration into what the strategy needs.

    Raises:
        ConfigError: if rounds or cohorts are asked for that cannot be.
    """
    wanted = config["clients_per_round"]
    cohort = data.num_clients if wanted is None else wanted
    checking.require_some("clients_per_round", cohort, data.num_clients)
    sampled = data.num_clients if evaluator.num_clients is None else evaluator.num_clients
    checking.require_some("evaluation.num_clients", sampled, data.num_clients)
    job = make_job(config, data, guard, folder.run_id)
    return Plan(
        job=job,
        place={} if deployed else make_place(data, folder.path / "clients"),
        seed=config["seed"],
        num_clients=data.num_clients,
        num_items=data.num_items,
        num_examples=data.num_examples,
        clients_per_round=cohort,
        num_rounds=config["num_rounds"],
        evaluator=evaluator,
        release=guard.release,
        measures=guard.measures,
        bounds=Bounds.of(evaluator, data),
        item_tables=frozenset(model.item_rows),
        model=model,
        limits=Limits(**job["limits"]),
        min_completion=config["min_completion"],
        max_retries=config["max_retries"],
        reply_timeout=config["reply_timeout"],
        node_patience=config["federation"].get("patience", 0.0),
        checkpoint_every=guard.secure.checkpoint_every(config["checkpoint_every"]),
        patience=config["patience"],
        curator=curator,
        secure=guard.secure,
    )


def make_job(config: Config, data: Prepared, guard: Guard, run_id: str) -> dict[str, Any]:
    """What every node must know; see `client.node.open_node`.

    Args:
        config: the resolved configuration.
        data: the prepared data.
        guard: what protects the clients.
        run_id: see `RunFolder.run_id`.
    """
    groups = ("model", "training", "evaluation", "compression", "faults", "attack")
    return {group: dict(config[group]) for group in (*groups, "secure_aggregation")} | {
        **guard.job(),
        "task": config["task"],
        "negatives": config["split"]["negatives"],
        "seed": config["seed"],
        "randomness": config["randomness"],
        "num_rounds": config["num_rounds"],
        "freeze": list(config["freeze"]),
        "finetune_epochs": config["finetune_epochs"],
        "limits": asdict(Limits(guard.most_weight, HUGE)),
        "data": data.digest,
        # A deployed node keeps what belongs to a run, also after an interruption.
        "run": run_id,
        # A node keeps a job open: a folder that was removed and used again is another job.
        "session": uuid4().hex,
    }


def make_place(data: Prepared, store: Path) -> dict[str, str]:
    """Where simulated nodes find their data and keep their files; see `Plan.place`.

    Args:
        data: the prepared data.
        store: where nodes keep what stays with their clients.
    """
    return {"prepared": str(data.path.resolve()), "store": str(store.resolve())}

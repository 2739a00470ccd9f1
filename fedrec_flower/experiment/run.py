"""Runs one experiment, from the configuration to the run folder; `run` shows all its steps."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from flwr.serverapp import Grid

from fedrec_flower import __version__
from fedrec_flower.communication.limits import Limits
from fedrec_flower.core.cpu import allowed_cores
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Config, Tensors
from fedrec_flower.core.updates import HUGE
from fedrec_flower.data.partitions.statistics import partition_table
from fedrec_flower.data.prepare import prepare
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.splits.base import split_sha256
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.evaluation.metric_sums import Bounds
from fedrec_flower.experiment import compatibility
from fedrec_flower.experiment.artifacts import write_artifacts
from fedrec_flower.experiment.callbacks import SetupTimer, open_callbacks
from fedrec_flower.experiment.privacy_audit import TrainedRun, check_attack, run_inference
from fedrec_flower.experiment.privacy_setup import PrivacySetup
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.shadow_federations import Shadows
from fedrec_flower.experiment.summary import RunSummary
from fedrec_flower.experiment.transfer import SavedModel, transfer_parameters
from fedrec_flower.federation.components import build_attack, build_evaluator, build_model
from fedrec_flower.federation.job import NodeJob, NodePlace
from fedrec_flower.federation.results import Outcome
from fedrec_flower.federation.server.callback import Callback
from fedrec_flower.federation.server.loop import Server
from fedrec_flower.federation.server.plan import Plan
from fedrec_flower.federation.transport.base import Transport, federate
from fedrec_flower.federation.transport.in_process import InProcess
from fedrec_flower.models.base import Recommender
from fedrec_flower.privacy.mechanism import ServerMechanism
from fedrec_flower.strategies.base import FederatedStrategy, FederationInfo
from fedrec_flower.threats.base import Attack

_LOG = logging.getLogger(__name__)


def run(
    config: Config, folder: RunFolder, engine: Transport | None = None, *, grid: Grid | None = None
) -> dict[str, Any]:
    """Run an experiment and fill its folder.

    Args:
        config: the resolved configuration: a mapping per group, and the values no group owns.
        folder: the run's folder, new; or that of an unfinished run of the same configuration,
            which is resumed from its last checkpoint (see `results.resume`).
        engine: used instead of the one in the configuration.
        grid: Flower's grid of a deployment; None in a simulation.

    Returns:
        The summary, as in summary.json.

    Raises:
        FedrecError: an error that the user can fix; existing files of the folder are kept.
    """
    saved = folder.checkpoints.newest()
    with RunSummary(folder, config, saved) as record:
        setup = set_up(config, folder, grid)
        record.update(setup.facts())
        with open_callbacks(
            config["callbacks"],
            folder=folder,
            summary=record,
            num_rounds=setup.plan.num_rounds,
            select_by=setup.evaluator.select_by,
        ) as callbacks:
            server = setup.server(config, [SetupTimer(record), *callbacks])
            compatibility.check_centralized(config, setup.data)
            compatibility.check_strategy(server.strategy, setup.model, setup.privacy_setup.secure)
            setup.privacy_setup.check(server.strategy)
            check_attack(setup.attack, server, setup.data)
            if saved is not None:
                folder.checkpoints.restore(saved)
                server.resume(saved)
            log = folder.path / "flower.log"
            initial = setup.initial(server.strategy)
            outcome = federate(engine or setup.engine, server, initial, log)
        client_state = folder.path / "clients"
        shadows = Shadows(config, setup.data, run_quietly)
        scene = TrainedRun(
            setup.data, setup.privacy_setup, server, outcome, initial, client_state, shadows
        )
        record.update(run_inference(setup.attack, scene))
        write_artifacts(record, setup.data, outcome, setup.attack, deployed=grid is not None)
    folder.tidy()
    return record.summary


@dataclass(frozen=True, slots=True)
class Setup:
    """All objects of a run, built and checked before the first round.

    Attributes:
        data: the prepared data.
        model: the recommender, without users.
        evaluator: what is measured, and which metric selects the released round.
        curator: the server's side of privacy.
        plan: the facts of the run that the server needs.
        engine: carries messages between server and nodes.
        num_nodes: number of nodes that host the clients; 0 in a deployment, where it is not known.
        seed: the experiment's seed.
        source: the model of another run to start from; None for a random initialisation.
        privacy_setup: privacy mechanism and secure aggregation.
        attack: poisoning or inference attack.
        left_out: a sentence on each evaluation setting that was changed to fit the data.
    """

    data: Prepared
    model: Recommender
    evaluator: Evaluator
    curator: ServerMechanism
    plan: Plan
    engine: Transport
    num_nodes: int
    seed: int
    source: SavedModel | None
    privacy_setup: PrivacySetup
    attack: Attack
    left_out: list[str]

    def info(self) -> FederationInfo:
        """Return the facts of the run that an algorithm may use."""
        plan = self.plan
        training = plan.job.training
        return FederationInfo(
            seed=plan.seed,
            num_clients=plan.num_clients,
            num_items=plan.num_items,
            num_examples=plan.num_examples,
            clients_per_round=plan.clients_per_round,
            item_tables=plan.item_tables,
            model=self.model,
            optimizer=training["optimizer"],
            learning_rate=training["learning_rate"],
            max_client_weight=plan.limits.weight,
            flip_rate=self.curator.flip_rate,
        )

    def server(self, config: Config, callbacks: Sequence[Callback] = ()) -> Server:
        """Build the server with the strategy that the configuration describes.

        Args:
            config: the resolved configuration.
            callbacks: called by the server, in this order.
        """
        return Server(
            build("strategy", config["strategy"], info=self.info()),
            self.plan,
            model=self.model,
            evaluator=self.evaluator,
            curator=self.curator,
            secure_aggregation=self.privacy_setup.secure,
            callbacks=callbacks,
        )

    def initial(self, strategy: FederatedStrategy) -> Tensors:
        """Initial shared parameters, random or from another run; empty if none are communicated."""
        names = self.model.shared_names() if strategy.communicates else []
        drawn = self.model.initial(names, generator(self.seed, "initial-shared"))
        if self.source is None:
            return drawn
        return transfer_parameters(drawn, self.source, self.data.item_ids, self.model.item_rows)

    def facts(self) -> dict[str, Any]:
        """Facts on data and privacy for the summary."""
        facts: dict[str, Any] = {
            "num_clients": self.data.num_clients,
            "num_users": self.data.num_users,
            "num_items": self.data.num_items,
            "split_sha256": self.data.split_sha256,
            **self.privacy_setup.facts(),
        }
        if self.left_out:
            facts["left_out"] = self.left_out
        return facts


def run_quietly(config: Config, data: Prepared, folder: RunFolder) -> Outcome:
    """Run a federation in this process, on prepared data, without tables or a progress bar.

    Args:
        config: the resolved configuration; its data, engine and number of nodes are not used.
        data: the prepared data.
        folder: for the clients' state and Flower's log.
    """
    setup = set_up(config, folder, data=data)
    server = setup.server(config)
    engine = InProcess(setup.num_nodes)
    return federate(engine, server, setup.initial(server.strategy), folder.path / "flower.log")


def set_up(
    config: Config,
    folder: RunFolder,
    grid: Grid | None = None,
    *,
    data: Prepared | None = None,
) -> Setup:
    """Prepare the data, build all objects of the run, and check the configuration.

    Args:
        config: see `run`.
        folder: see `run`.
        grid: see `run`; in a deployment, privacy noise comes from the operating system.
        data: used instead of the data in the configuration.
    """
    compatibility.validate_config(config, deployed=grid is not None)
    data = prepare_data(config) if data is None else data
    model = build_model(config["model"], data.info, config["task"])
    source = read_source(config, model)
    model.freeze(config["freeze"])
    config, evaluator, left_out = fit_evaluation(config, data)
    compatibility.check(config, data, model, evaluator)
    privacy_setup = PrivacySetup.from_config(config, data, model, deployed=grid is not None)
    attack = build_attack(config["attack"], data, model, config["seed"])
    curator = privacy_setup.server_mechanism(folder.path, source)
    deployed = grid is not None
    plan = make_plan(config, data, model, evaluator, folder, privacy_setup, deployed=deployed)
    if grid is None:
        nodes = _num_nodes(config, data)
        privacy_setup.secure.check(nodes, plan.clients_per_round)
        engine = build("federation", {**config["federation"], "num_nodes": nodes})
    else:
        nodes = 0  # the nodes register with Flower
        engine = build("federation", config["federation"], grid=grid)
    return Setup(
        data,
        model,
        evaluator,
        curator,
        plan,
        engine,
        nodes,
        config["seed"],
        source,
        privacy_setup,
        attack,
        left_out,
    )


def fit_evaluation(config: Config, data: Prepared) -> tuple[Config, Evaluator, list[str]]:
    """Change evaluation settings that the data do not allow, with a warning in the log.

    Args:
        config: see `run`.
        data: the prepared data.

    Returns:
        The configuration with the evaluation that is carried out, the evaluator, and one sentence
        on each setting that was changed.
    """
    requested = build_evaluator(config["evaluation"], data.info, config["task"])
    fitted, left_out = requested.fitted(data.num_items, data.max_seen_items)
    for sentence in left_out:
        _LOG.warning("%s", sentence)
    changed = {name: getattr(fitted, name, value) for name, value in config["evaluation"].items()}
    return {**config, "evaluation": changed}, fitted, left_out


def _num_nodes(config: Config, data: Prepared) -> int:
    """Number of nodes of a simulation: the configured one, by default one per core."""
    nodes = config["federation"].get("num_nodes")
    if nodes is None:
        nodes = min(allowed_cores(), data.num_clients)
    compatibility.check_nodes(nodes, data)
    return int(nodes)


def read_source(config: Config, model: Recommender) -> SavedModel | None:
    """Read the model of `init_from`, if the run starts from one.

    Raises:
        ConfigError: if it cannot be read, or this model cannot be initialised or frozen.
    """
    compatibility.check_source(config, model)
    return SavedModel.read(config["init_from"]) if config["init_from"] else None


def prepare_data(config: Config) -> Prepared:
    """Load, split and partition the data, or open the cached result of an earlier run."""
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
        "version": __version__,  # a later version may read the same files differently
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
    privacy_setup: PrivacySetup,
    *,
    deployed: bool,
) -> Plan:
    """Build the plan that the strategy needs.

    Raises:
        ConfigError: if the number of clients per round or per evaluation is not possible.
    """
    cohort = config["clients_per_round"]
    if cohort is None:
        cohort = data.num_clients
    compatibility.require_some("clients_per_round", cohort, data.num_clients)
    sampled = data.num_clients if evaluator.num_clients is None else evaluator.num_clients
    compatibility.require_some("evaluation.num_clients", sampled, data.num_clients)
    job = make_job(config, data, privacy_setup, folder.run_id)
    return Plan(
        job=job,
        place=None if deployed else make_place(data, folder.path / "clients"),
        seed=config["seed"],
        num_clients=data.num_clients,
        num_items=data.num_items,
        num_examples=data.num_examples,
        clients_per_round=cohort,
        num_rounds=config["num_rounds"],
        release=privacy_setup.release,
        measures=privacy_setup.measures,
        bounds=Bounds.of(evaluator, data),
        item_tables=frozenset(model.item_rows),
        limits=job.limits,
        min_completion=config["min_completion"],
        max_retries=config["max_retries"],
        reply_timeout=config["reply_timeout"],
        node_patience=config["federation"].get("patience", 0.0),
        checkpoint_every=privacy_setup.secure.checkpoint_every(config["checkpoint_every"]),
        patience=config["patience"],
    )


def make_job(config: Config, data: Prepared, privacy_setup: PrivacySetup, run_id: str) -> NodeJob:
    """Build the job that every node receives; the server adds the strategy's part.

    Args:
        config: the resolved configuration.
        data: the prepared data.
        privacy_setup: privacy mechanism and secure aggregation.
        run_id: see `RunFolder.run_id`.
    """
    return NodeJob(
        model=dict(config["model"]),
        training=dict(config["training"]),
        evaluation=dict(config["evaluation"]),
        privacy=dict(privacy_setup.node),
        compression=dict(config["compression"]),
        secure_aggregation=dict(config["secure_aggregation"]),
        faults=dict(config["faults"]),
        attack=dict(config["attack"]),
        task=config["task"],
        negatives=config["split"]["negatives"],
        seed=config["seed"],
        randomness=config["randomness"],
        num_rounds=config["num_rounds"],
        freeze=list(config["freeze"]),
        finetune_epochs=config["finetune_epochs"],
        limits=Limits(privacy_setup.max_weight, HUGE),
        data=data.digest,
        run=run_id,
        session=uuid4().hex,
        deployed=privacy_setup.deployed,
    )


def make_place(data: Prepared, store: Path) -> NodePlace:
    """Return the paths of simulated nodes.

    Args:
        data: the prepared data.
        store: folder of the client state.
    """
    return NodePlace(prepared=str(data.path.resolve()), store=str(store.resolve()))

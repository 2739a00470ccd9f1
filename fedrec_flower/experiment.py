"""One experiment, from configuration to run folder: read `run` first, it is the whole story."""

from collections.abc import Mapping
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from typing import Any
from uuid import uuid4

from fedrec_flower import __version__
from fedrec_flower.config import build
from fedrec_flower.errors import ConfigError
from fedrec_flower.evaluation import Evaluator
from fedrec_flower.federation import Engine, federate
from fedrec_flower.models import Recommender
from fedrec_flower.models.base import Tensors
from fedrec_flower.models.exact import ExactRecommender
from fedrec_flower.partitions.statistics import partition_table
from fedrec_flower.prepared import Prepared
from fedrec_flower.preparing import prepare
from fedrec_flower.progress import Progress
from fedrec_flower.publish import publish
from fedrec_flower.report import Record
from fedrec_flower.results import RunFolder
from fedrec_flower.seeding import generator
from fedrec_flower.splits.digest import split_sha256
from fedrec_flower.strategies import Centralized, FederatedStrategy, Plan, Sums
from fedrec_flower.training import check_engine

Config = Mapping[str, Any]


def run(config: Config, folder: RunFolder, engine: Engine | None = None) -> dict[str, Any]:
    """Run an experiment and fill its folder.

    Args:
        config: the resolved configuration: a mapping per group, and the values no group owns.
        folder: the run's folder, new.
        engine: takes the place of the one that the configuration describes.

    Returns:
        The summary, as in summary.json.

    Raises:
        FedrecError: a mistake that the user can mend; the folder keeps what it had.
    """
    with Record(folder, config) as record:
        setup = set_up(config, folder)
        record.learn(setup.facts())
        with Progress(folder, setup.plan, record) as progress:
            strategy = build("strategy", config["strategy"], plan=setup.plan, observer=progress)
            check_strategy(strategy, setup.model)
            log = folder.path / "flower.log"
            outcome = federate(engine or setup.engine, strategy, setup.initial(strategy), log)
        return publish(record, setup.data, outcome)


@dataclass(frozen=True, slots=True)
class Setup:
    """What is known before the first round.

    Attributes:
        data: the prepared data.
        model: the recommender, without users.
        plan: the run, as the strategy sees it.
        engine: carries messages.
        seed: the experiment's seed.
    """

    data: Prepared
    model: Recommender
    plan: Plan
    engine: Engine
    seed: int

    def initial(self, strategy: FederatedStrategy) -> Tensors:
        """Draw initial shared parameters; none where nothing travels."""
        names = self.model.shared_names() if strategy.shares else []
        return self.model.initial(names, generator(self.seed, "initial-shared"))

    def facts(self) -> dict[str, Any]:
        """What the summary says of the data."""
        return {
            "num_clients": self.data.num_clients,
            "num_users": self.data.num_users,
            "num_items": self.data.num_items,
            "split_sha256": self.data.split_sha256,
        }


def set_up(config: Config, folder: RunFolder) -> Setup:
    """Prepare the data, build the model, check that what is asked for is possible."""
    for name in ("seed", "num_rounds"):
        _require_at_least(name, config[name], 0)
    data = prepare_data(config)
    known = {
        "num_users": 1,  # the server has no users; personal tables live on the nodes
        "num_items": data.num_items,
        "rating_range": data.rating_range,
        "task": config["task"],
    }
    model: Recommender = build("model", config["model"], **known)
    evaluator: Evaluator = build("evaluation", config["evaluation"], **known)
    # A wrong value is better told here than by a node.
    training = build("training", config["training"])
    if config["task"] == "rating" and training.loss != "mse":
        raise ConfigError(f"training.loss={training.loss} cannot predict ratings: choose mse")
    if evaluator.task != config["task"]:
        raise ConfigError(
            f"evaluation={evaluator.task} does not fit task={config['task']}: choose the same"
        )
    evaluator.check(data.num_items)
    wanted, unknown = config["evaluation"].get("num_negatives", 0), data.num_items - data.most_known
    if wanted > unknown:
        raise ConfigError(
            f"evaluation.num_negatives={wanted} is impossible: the most active user leaves only "
            f"{unknown} items to rank against, so give {unknown} or fewer (0 for none)"
        )
    if not isinstance(model, ExactRecommender):
        check_engine(
            model,
            training,
            data.client(data.largest_client),
            task=config["task"],
            negatives=config["split"]["negatives"],
            num_items=data.num_items,
            seed=config["seed"],
        )
    elif config["task"] == "rating":
        name = type(model).__name__
        raise ConfigError(
            f"{name} ranks and cannot predict ratings: choose task=ranking or another model"
        )
    plan = make_plan(config, data, model, evaluator, folder)
    asked = config["federation"].get("num_nodes")
    nodes = min(cpu_count() or 1, data.num_clients) if asked is None else asked
    if not 1 <= nodes <= data.num_clients:
        raise ConfigError(
            f"federation.num_nodes={nodes} is impossible with {data.num_clients} clients: "
            "every node hosts at least one, so lower it or leave it null"
        )
    engine = build("federation", {**config["federation"], "num_nodes": nodes})
    return Setup(data, model, plan, engine, config["seed"])


def check_strategy(strategy: FederatedStrategy, model: Recommender) -> None:
    """Refuse to average what must be solved.

    Raises:
        ConfigError: names the strategy, the model and what to choose.
    """
    fits = isinstance(strategy, Sums | Centralized) or not strategy.shares
    if isinstance(model, ExactRecommender) and not fits:
        raise ConfigError(
            f"{type(strategy).__name__} does not fit {type(model).__name__}, which is solved from "
            "sums: choose strategy=sums"
        )


def prepare_data(config: Config) -> Prepared:
    """Load, split and partition the data, or open what an earlier run prepared the same way."""
    dataset = build("dataset", config["dataset"])
    splitter = build("split", config["split"])
    partitioner = build("partition", config["partition"])
    seed = config["seed"]

    def cook() -> tuple[Any, ...]:
        interactions = dataset.load()
        split = splitter.split(interactions, seed)
        partition = partitioner.assign(interactions, split, seed)
        table = partition_table(interactions, split, partition)
        return interactions, split, partition, split_sha256(interactions, split), table

    recipe = {
        "version": __version__,  # a later version may read the same files in another way
        "dataset": dataset.fingerprint(),
        "split": dict(config["split"]),
        "partition": dict(config["partition"]),
        "seed": seed,
    }
    return prepare(dataset.cache_path, recipe, cook)


def make_plan(
    config: Config, data: Prepared, model: Recommender, evaluator: Evaluator, folder: RunFolder
) -> Plan:
    """Turn the configuration into what the strategy needs.

    Raises:
        ConfigError: if rounds or cohorts are asked for that cannot be.
    """
    wanted = config["clients_per_round"]
    cohort = data.num_clients if wanted is None else wanted
    _require_some("clients_per_round", cohort, data.num_clients)
    sampled = data.num_clients if evaluator.num_clients is None else evaluator.num_clients
    _require_some("evaluation.num_clients", sampled, data.num_clients)
    job = make_job(config, data, folder.path / "clients")
    tables = frozenset(model.item_rows)
    rounds = config["num_rounds"]
    return Plan(job, config["seed"], data.num_clients, cohort, rounds, evaluator, tables, model)


def make_job(config: Config, data: Prepared, store: Path) -> dict[str, Any]:
    """What every node must know; see `client.node.open_node`.

    Args:
        config: the resolved configuration.
        data: the prepared data.
        store: where nodes keep what stays with their clients.
    """
    groups = ("model", "training", "evaluation", "privacy")
    return {group: dict(config[group]) for group in groups} | {
        "task": config["task"],
        "negatives": config["split"]["negatives"],
        "seed": config["seed"],
        "num_rounds": config["num_rounds"],
        "prepared": str(data.path.resolve()),
        "store": str(store.resolve()),
        # A node keeps a job open: a folder that was removed and used again is another job.
        "run": uuid4().hex,
    }


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name}={value} is impossible: give {least} or more")


def _require_some(name: str, value: int, num_clients: int) -> None:
    if not 1 <= value <= num_clients:
        raise ConfigError(f"{name}={value} is impossible: choose between 1 and {num_clients}")

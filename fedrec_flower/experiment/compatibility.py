"""What cannot be: every combination that is refused before the first round, in one sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.instantiate import build
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.federation.server.loop import FederatedStrategy
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.privacy.mechanism import NoPrivacy
from fedrec_flower.strategies.baselines import Centralized
from fedrec_flower.strategies.fedbuff import FedBuff
from fedrec_flower.strategies.sufficient_statistics import Sums
from fedrec_flower.threats.faults import NoFaults
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.factory import check_engine

Config = Mapping[str, Any]

RANDOMNESS = ("seeded", "private")
_LARGEST_SEED = 2**63 - 1  # of a column of integers


def check_numbers(config: Config) -> None:
    """Refuse counts and shares that no run can have.

    Raises:
        ConfigError: names the value and what is possible.
    """
    for name in ("seed", "num_rounds", "max_retries", "finetune_epochs"):
        _require_at_least(name, config[name], 0)
    require(
        config["randomness"] in RANDOMNESS,
        f"randomness={config['randomness']} is unknown: choose {' or '.join(RANDOMNESS)}",
    )
    require(
        config["seed"] <= _LARGEST_SEED,
        f"seed={config['seed']} could not be read back from the results: give one up to "
        f"{_LARGEST_SEED}",
    )
    for name in ("checkpoint_every", "patience"):
        _require_at_least(name, 1 if config[name] is None else config[name], 1)
    require(
        0 <= config["min_completion"] <= 1,
        f"min_completion={config['min_completion']} is impossible: give a share from 0 to 1",
    )
    timeout = config["reply_timeout"]
    require(timeout > 0, f"reply_timeout={timeout} is impossible: give seconds above 0")


def check_deployment(config: Config, *, deployed: bool) -> None:
    """Refuse to deploy what belongs to simulations, and to simulate a deployment.

    Args:
        config: the resolved configuration.
        deployed: whether Flower has given a grid, as `flwr run` does.

    Raises:
        ConfigError: names the choice and what to choose.
    """
    engine = config["federation"].get("name")
    require(
        deployed == (engine == "deployment"),
        f"federation={engine} does not fit: `flwr run` carries a deployment and chooses it by "
        "itself, and a run of this command needs federation=simulation or in_process",
    )
    require(
        not deployed or config["randomness"] == "private",
        f"randomness={config['randomness']} lets the server know what clients draw: leave it at "
        "private in a deployment",
    )
    for group in ("attack", "faults") if deployed else ():
        name = config[group].get("name")
        require(
            name == "none",
            f"{group}={name} belongs to simulations: leave it at none in a deployment",
        )


def check(config: Config, data: Prepared, model: Recommender, evaluator: Evaluator) -> None:
    """Refuse what does not fit together; a wrong value is better told here than by a node.

    Args:
        config: the resolved configuration.
        data: the prepared data.
        model: the recommender, without users.
        evaluator: what is measured.

    Raises:
        ConfigError: names the value and the mend.
    """
    training: LocalTraining = build("training", config["training"])
    sizes = {"num_clients": data.num_clients, "num_items": data.num_items}
    faults: NoFaults = build("faults", config["faults"], seed=config["seed"], **sizes)
    _check_faults(faults, model)
    _check_silence(build("privacy", config["privacy"]), faults, config)
    _check_compression(config, model)
    _check_task(config, training, evaluator)
    evaluator.check(data.num_items)
    _check_times(data, model)
    _check_history(config, model)
    if isinstance(model, ClosedFormRecommender):
        _check_exact(config, model)
    else:
        _check_negatives(config, data)
        check_engine(
            model,
            training,
            data.client(data.largest_client),
            task=config["task"],
            negatives=config["split"]["negatives"],
            num_items=data.num_items,
            seed=config["seed"],
        )
    require(
        config["patience"] is None or len(data.part(Part.VALIDATION).item) > 0,
        f"patience={config['patience']} waits for better validation, but no interaction is held "
        "out for it: leave patience null, or choose a split with a validation part",
    )


def check_nodes(num_nodes: int, data: Prepared) -> None:
    """Refuse nodes that would host nobody.

    Raises:
        ConfigError: says how many there may be.
    """
    if not 1 <= num_nodes <= data.num_clients:
        raise ConfigError(
            f"federation.num_nodes={num_nodes} is impossible with {data.num_clients} clients: "
            "every node hosts at least one, so lower it or leave it null"
        )


def check_source(config: Config, model: Recommender) -> None:
    """Refuse to start exact models from another run, or to freeze them.

    Raises:
        ConfigError: names the model and what to choose.
    """
    for name in ("init_from", "freeze"):
        require(
            not (config[name] and isinstance(model, ClosedFormRecommender)),
            f"{name}={config[name]} does not fit {type(model).__name__}, which is solved anew from "
            "sums: leave it out or choose another model",
        )


def check_strategy(strategy: FederatedStrategy, model: Recommender) -> None:
    """Refuse to average what must be solved or comes too late, and to look at what stays unseen.

    Raises:
        ConfigError: names the strategy, the model and what to choose.
    """
    fits = isinstance(strategy, Sums | Centralized) or not strategy.shares
    if isinstance(model, ClosedFormRecommender) and not fits:
        raise ConfigError(
            f"{type(strategy).__name__} does not fit {type(model).__name__}, which is solved from "
            "sums: choose strategy=sums"
        )
    lasts = type(model).settle is Recommender.settle
    require(
        lasts or not isinstance(strategy, FedBuff),
        f"FedBuff does not fit {type(model).__name__}, whose parameters mean something else every "
        "round, so that late updates mislead: choose strategy=fedrmsprop",
    )
    name, secure = type(strategy).__name__, strategy.plan.secure
    secure.check_strategy(name, shares=strategy.shares, stacked=strategy.stacked)


def _check_task(config: Config, training: LocalTraining, evaluator: Evaluator) -> None:
    task = config["task"]
    if task == "rating" and training.loss != "mse":
        raise ConfigError(f"training.loss={training.loss} cannot predict ratings: choose mse")
    if evaluator.task != task:
        raise ConfigError(f"evaluation={evaluator.task} does not fit task={task}: choose the same")


def _check_negatives(config: Config, data: Prepared) -> None:
    """Refuse users whose negatives would have to be drawn from nothing, before they train.

    Raises:
        ConfigError: says what to choose.
    """
    if config["task"] == "rating":
        return
    legacy = config["split"]["negatives"] == "legacy"  # which spares held-out items
    parts = [data.part(part) for part in (Part if legacy else (Part.TRAIN,))]
    counts = sum(np.diff(part.offsets) for part in parts)
    for user in np.flatnonzero(counts >= data.num_items).tolist():
        known = np.concatenate([part.slice(user, user + 1).item for part in parts])
        require(
            len(np.unique(known)) < data.num_items,
            f"a user has interacted with all {data.num_items} items, so no negative exists: use a "
            "larger catalogue or task=rating",
        )


def _check_times(data: Prepared, model: Recommender) -> None:
    ordered = isinstance(model, HistoryRecommender) and model.window
    require(
        data.timed or not ordered,
        f"{type(model).__name__} reads items in the order of time, and {data.name} has no "
        "timestamps: choose another model or name a timestamp column",
    )


def _check_history(config: Config, model: Recommender) -> None:
    """Refuse to say that a model reads on which reads nothing."""
    kind, asked = type(model), config["evaluation"].get("test_history", "train")
    reads = kind.observe is not Recommender.observe or kind.features is not Recommender.features
    require(
        asked == "train" or reads,
        f"evaluation.test_history={asked} changes nothing for {kind.__name__}, which scores from "
        "no history: leave it at train, or choose a model that reads one",
    )


def _check_exact(config: Config, model: ClosedFormRecommender) -> None:
    name = type(model).__name__
    model.require_memory(model.server_bytes, "the server")
    if config["task"] == "rating":
        raise ConfigError(
            f"{name} ranks and cannot predict ratings: choose task=ranking or another model"
        )
    if config["finetune_epochs"]:
        raise ConfigError(
            f"finetune_epochs={config['finetune_epochs']} needs gradients, and {name} is solved "
            "without any: leave it 0 or choose another model"
        )


def _check_faults(faults: NoFaults, model: Recommender) -> None:
    """Refuse to spoil sums, in which no client's part can be told from another's.

    Raises:
        ConfigError: names the model and what to choose.
    """
    summed = isinstance(model, ClosedFormRecommender)
    require(
        faults.only_absences or not summed,
        f"{type(model).__name__} is solved from sums, so its clients can only be absent: leave "
        "faults.dropout and faults.crash, and set every other fault to none",
    )


def _check_silence(privacy: NoPrivacy, faults: NoFaults, config: Config) -> None:
    """Refuse what tells of clients' data beside what privacy protects.

    Raises:
        ConfigError: names the value and the mend.
    """
    require(
        not (privacy.guarantees and faults.tells_activity),
        "faults.deadline leaves out the clients that train for long, which tells how much they "
        f"have, and privacy={config['privacy']['name']} hides that: set faults.deadline=null",
    )


def check_centralized(config: Config, data: Prepared) -> None:
    """Refuse to call a federation centralised.

    Raises:
        ConfigError: names the choice and the mend.
    """
    groups = ("federation", "strategy", "compression")
    names = {group: config[group].get("name") for group in groups}
    for group in ("federation", "strategy"):
        require(
            names[group] != "centralized" or data.num_clients == 1,
            f"{group}=centralized is training without a federation, by one client that holds all "
            f"the data, and there are {data.num_clients} clients: choose partition=single, or "
            "another federation with strategy=fedavg",
        )
    require(
        names["federation"] != "centralized" or names["compression"] == "none",
        f"compression={names['compression']} has no effect under federation=centralized, which "
        "sends nothing: choose compression=none",
    )


def _check_compression(config: Config, model: Recommender) -> None:
    """Refuse to compress what must travel whole.

    Raises:
        ConfigError: names what stands in the way.
    """
    name = config["compression"]["name"]
    whole = {
        f"model={config['model']['name']}": isinstance(model, ClosedFormRecommender),
        f"privacy={config['privacy']['name']}": config["privacy"]["name"] != "none",
        "secure_aggregation": config["secure_aggregation"]["name"] != "none",
    }
    for choice, stands in whole.items():
        require(
            name == "none" or not stands,
            f"compression={name} does not fit {choice}, whose messages are covered only as they "
            "are: choose compression=none",
        )


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name}={value} is impossible: give {least} or more")


def require_some(name: str, value: int, num_clients: int) -> None:
    """Refuse a number of clients that there are not.

    Raises:
        ConfigError: says how many there may be.
    """
    if not 1 <= value <= num_clients:
        raise ConfigError(f"{name}={value} is impossible: choose between 1 and {num_clients}")

"""Compatibility checks: combinations of settings that are rejected before the first round."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from fedrec_flower.communication.secure_aggregation.secagg import SecureAggregation
from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.instantiate import check_node
from fedrec_flower.core.ranges import (
    Fraction,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_value,
)
from fedrec_flower.core.types import Config
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.federation.components import build_faults, build_privacy, build_training
from fedrec_flower.models.abilities import HistoryBased, ServerPostprocess, SideInformation
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.threats.faults import FaultModel
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.factory import check_trainer

_MAX_SEED = 2**63 - 1  # the largest value of an int64 column


_ROOT: Mapping[str, Any] = {
    "seed": Annotated[int, Field(ge=0, le=_MAX_SEED)],
    "randomness": Literal["seeded", "private"],
    "num_rounds": NonNegativeInt,
    "clients_per_round": PositiveInt | None,
    "min_completion": Fraction,
    "max_retries": NonNegativeInt,
    "reply_timeout": PositiveFloat,
    "finetune_epochs": NonNegativeInt,
    "patience": PositiveInt | None,
    "checkpoint_every": PositiveInt | None,
    "release": Literal["validation", "last"] | None,
}
"""Types and ranges of the values outside the groups."""

_GROUPS = (
    "dataset",
    "split",
    "partition",
    "training",
    "strategy",
    "privacy",
    "secure_aggregation",
    "compression",
    "faults",
    "attack",
    "evaluation",
    "model",
    "federation",
)


def validate_config(config: Config, *, deployed: bool) -> None:
    """Check all that can be checked before the data are prepared and any object is built.

    These are the names, types and ranges of all options, and the relations between groups that do
    not depend on data. `check` and the functions below check the rest.

    Args:
        config: the resolved configuration.
        deployed: True if Flower provides the grid, as `flwr run` does.

    Raises:
        ConfigError: names the option, its value and the fix.
    """
    for name, annotation in _ROOT.items():
        check_value(name, config[name], annotation)
    check_deployment(config, deployed=deployed)
    for group in _GROUPS:
        node = config[group]
        if group == "federation" and node.get("num_nodes") is None:
            node = {name: value for name, value in node.items() if name != "num_nodes"}
        check_node(group, node)
    for name, node in config["callbacks"].items():
        if node is not None:
            check_node(f"callbacks.{name}", node)


def check_deployment(config: Config, *, deployed: bool) -> None:
    """Check that the settings fit a deployment or a simulation.

    Args:
        config: the resolved configuration.
        deployed: True if Flower provides the grid, as `flwr run` does.

    Raises:
        ConfigError: names the setting and the alternative.
    """
    engine = config["federation"].get("name")
    require(
        deployed == (engine == "deployment"),
        f"federation={engine} does not fit: `flwr run` always uses federation=deployment, and any "
        "other command needs federation=simulation or in_process",
    )
    require(
        not deployed or config["randomness"] == "private",
        f"randomness={config['randomness']} lets the server compute the draws of the clients: use "
        "randomness=private in a deployment",
    )
    for group in ("attack", "faults") if deployed else ():
        name = config[group].get("name")
        require(
            name == "none",
            f"{group}={name} works in simulations only: use {group}=none in a deployment",
        )


def check(config: Config, data: Prepared, model: Recommender, evaluator: Evaluator) -> None:
    """Check that the settings fit each other, the data and the model, before nodes are started.

    Args:
        config: the resolved configuration.
        data: the prepared data.
        model: the recommender, without users.
        evaluator: the evaluator.

    Raises:
        ConfigError: names the value and the fix.
    """
    training = build_training(config["training"])
    faults = build_faults(config["faults"], data, config["seed"])
    _check_faults(faults, model)
    _check_silence(build_privacy(config["privacy"]), faults, config)
    _check_compression(config, model)
    _check_task(config, training, evaluator)
    evaluator.check(data.num_items)
    _check_times(data, model)
    _check_history(config, model)
    if isinstance(model, ClosedFormRecommender):
        _check_exact(config, model)
    else:
        _check_negatives(config, data)
        check_trainer(
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
        f"patience={config['patience']} needs validation data, but this split holds out none: use "
        "patience=null, or choose a split with a validation part",
    )


def check_nodes(num_nodes: int, data: Prepared) -> None:
    """Check that each node hosts at least one client.

    Raises:
        ConfigError: states the possible number of nodes.
    """
    if not 1 <= num_nodes <= data.num_clients:
        raise ConfigError(
            f"federation.num_nodes={num_nodes} is impossible with {data.num_clients} clients: "
            "every node hosts at least one, so lower it or use null"
        )


def check_source(config: Config, model: Recommender) -> None:
    """Check that a closed-form model is neither initialised from another run nor frozen.

    Raises:
        ConfigError: names the model and the alternative.
    """
    for name in ("init_from", "freeze"):
        require(
            not (config[name] and isinstance(model, ClosedFormRecommender)),
            f"{name}={config[name]} does not fit {type(model).__name__}, which is solved in closed "
            "form: leave it out or choose another model",
        )


def check_strategy(
    strategy: FederatedStrategy, model: Recommender, secure: SecureAggregation
) -> None:
    """Check that the strategy fits the model and secure aggregation.

    Raises:
        ConfigError: names the strategy, the model and the alternative.
    """
    fits = strategy.solves_statistics or not strategy.communicates
    if isinstance(model, ClosedFormRecommender) and not fits:
        raise ConfigError(
            f"{type(strategy).__name__} does not fit {type(model).__name__}, which is solved from "
            "sums: choose strategy=sums"
        )
    require(
        not (isinstance(model, ServerPostprocess) and strategy.asynchronous),
        f"{type(strategy).__name__} does not fit {type(model).__name__}, whose parameters change "
        "their meaning every round, so delayed updates are invalid: choose strategy=fedrmsprop",
    )
    secure.check_strategy(
        type(strategy).__name__,
        communicates=strategy.communicates,
        individual_updates=strategy.needs_individual_updates,
    )


def _check_task(config: Config, training: LocalTraining, evaluator: Evaluator) -> None:
    task = config["task"]
    if task == "rating" and training.loss != "mse":
        raise ConfigError(f"training.loss={training.loss} cannot predict ratings: choose mse")
    if evaluator.task != task:
        raise ConfigError(f"evaluation={evaluator.task} does not fit task={task}: choose the same")


def _check_negatives(config: Config, data: Prepared) -> None:
    """Check that every user has at least one item to sample as a negative.

    Raises:
        ConfigError: names the alternative.
    """
    if config["task"] == "rating":
        return
    legacy = config["split"]["negatives"] == "legacy"  # it never samples held-out items
    parts = [data.part(part) for part in (Part if legacy else (Part.TRAIN,))]
    counts = sum(np.diff(part.offsets) for part in parts)
    for user in np.flatnonzero(counts >= data.num_items).tolist():
        seen_items = np.concatenate([part.slice(user, user + 1).item for part in parts])
        require(
            len(np.unique(seen_items)) < data.num_items,
            f"a user has interacted with all {data.num_items} items, so no negative exists: use a "
            "larger catalogue or task=rating",
        )


def _check_times(data: Prepared, model: Recommender) -> None:
    sequential = isinstance(model, HistoryRecommender) and model.window
    require(
        data.timed or not sequential,
        f"{type(model).__name__} reads items in order of time, but {data.name} has no "
        "timestamps: choose another model or name a timestamp column",
    )


def _check_history(config: Config, model: Recommender) -> None:
    """Check that only a model that scores from histories is given another test history."""
    test_history = config["evaluation"].get("test_history", "train")
    require(
        test_history == "train" or isinstance(model, HistoryBased | SideInformation),
        f"evaluation.test_history={test_history} has no effect on {type(model).__name__}, which "
        "does not score from histories: use train, or choose a model that does",
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
            f"finetune_epochs={config['finetune_epochs']} needs gradients, but {name} is solved in "
            "closed form: use 0 or choose another model"
        )


def _check_faults(faults: FaultModel, model: Recommender) -> None:
    """Check that faults change no sums, in which single clients cannot be distinguished.

    Raises:
        ConfigError: names the model and the alternative.
    """
    summed = isinstance(model, ClosedFormRecommender)
    require(
        faults.only_absences or not summed,
        f"{type(model).__name__} is solved from sums, so its clients can only be absent: keep "
        "faults.dropout and faults.crash, and set every other fault to none",
    )


def _check_silence(privacy: PrivacyMechanism, faults: FaultModel, config: Config) -> None:
    """Check that faults do not reveal client properties that the privacy mechanism hides.

    Raises:
        ConfigError: names the value and the fix.
    """
    require(
        not (privacy.has_guarantee and faults.reveals_activity),
        "faults.deadline leaves out clients with long training, which reveals how much data they "
        f"have, and privacy={config['privacy']['name']} hides that: set faults.deadline=null",
    )


def check_centralized(config: Config, data: Prepared) -> None:
    """Check that centralised training has one client and no compression.

    Raises:
        ConfigError: names the setting and the fix.
    """
    groups = ("federation", "strategy", "compression")
    names = {group: config[group].get("name") for group in groups}
    for group in ("federation", "strategy"):
        require(
            names[group] != "centralized" or data.num_clients == 1,
            f"{group}=centralized trains without a federation, with one client that holds all "
            f"the data, but there are {data.num_clients} clients: choose partition=single, or "
            "another federation with strategy=fedavg",
        )
    require(
        names["federation"] != "centralized" or names["compression"] == "none",
        f"compression={names['compression']} has no effect under federation=centralized, which "
        "sends nothing: choose compression=none",
    )


def _check_compression(config: Config, model: Recommender) -> None:
    """Check that messages which must not be changed are not compressed.

    Raises:
        ConfigError: names the setting that does not allow compression.
    """
    name = config["compression"]["name"]
    incompressible = {
        f"model={config['model']['name']}": isinstance(model, ClosedFormRecommender),
        f"privacy={config['privacy']['name']}": config["privacy"]["name"] != "none",
        "secure_aggregation": config["secure_aggregation"]["name"] != "none",
    }
    for choice, active in incompressible.items():
        require(
            name == "none" or not active,
            f"compression={name} does not fit {choice}, whose messages must not be changed: "
            "choose compression=none",
        )


def require_some(name: str, value: int, num_clients: int) -> None:
    """Check a number of sampled clients against the number of clients.

    Raises:
        ConfigError: states the possible numbers.
    """
    if not 1 <= value <= num_clients:
        raise ConfigError(f"{name}={value} is impossible: choose between 1 and {num_clients}")

"""Builds the objects of a run that the server and the nodes share, each by one function."""

from typing import Any

from fedrec_flower.communication.secure_aggregation.secagg import SecureAggregation
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.types import Config
from fedrec_flower.data.prepared import DatasetInfo, Prepared
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.models.base import Recommender
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.threats.base import Attack
from fedrec_flower.threats.faults import FaultModel
from fedrec_flower.training.config import LocalTraining


def build_model(config: Config, info: DatasetInfo, task: str) -> Recommender:
    """Build the recommender, for one user: user tables of several users are on the nodes' disks."""
    model: Recommender = build("model", config, num_users=1, task=task, **info.as_arguments())
    return model


def build_evaluator(config: Config, info: DatasetInfo, task: str) -> Evaluator:
    """Build the evaluator."""
    evaluator: Evaluator = build("evaluation", config, task=task, **info.as_arguments())
    return evaluator


def build_training(config: Config, **changes: Any) -> LocalTraining:
    """Build the settings of local training; `changes` replace values of the configuration."""
    training: LocalTraining = build("training", {**config, **changes})
    return training


def build_privacy(config: Config) -> PrivacyMechanism:
    """Build the privacy mechanism."""
    mechanism: PrivacyMechanism = build("privacy", config)
    return mechanism


def build_secure_aggregation(config: Config, max_client_weight: float) -> SecureAggregation:
    """Build secure aggregation.

    Args:
        config: the configuration.
        max_client_weight: largest weight of one client's contribution.
    """
    secure: SecureAggregation = build("secure_aggregation", config, client_weight=max_client_weight)
    return secure


def build_faults(config: Config, data: Prepared, seed: int) -> FaultModel:
    """Build the model of simulated faults."""
    faults: FaultModel = build(
        "faults", config, seed=seed, num_clients=data.num_clients, num_items=data.num_items
    )
    return faults


def build_attack(config: Config, data: Prepared, model: Recommender, seed: int) -> Attack:
    """Build the attack."""
    attack: Attack = build("attack", config, seed=seed, data=data, model=model)
    return attack

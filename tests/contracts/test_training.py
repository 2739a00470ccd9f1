"""Laws of every training configuration. New yamls are found without an edit."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.training.config import LocalTraining

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

CONF = Path(__file__).parents[2] / "conf"
EVERY_YAML = pytest.mark.parametrize(
    "path", sorted((CONF / "training").glob("*.yaml")), ids=lambda path: path.stem
)
# All models that are trained by gradients.
TRAINED = [p for p in (CONF / "model").glob("*.yaml") if "/strategy: sums" not in p.read_text()]
RANKS_ONLY = {"sasrec", "gru4rec", "two_tower", "hybrid", "multvae"}
EVERY_MODEL_AND_LOSS = pytest.mark.parametrize(
    ("model", "loss"),
    [
        (model, loss)
        for model in sorted(path.stem for path in TRAINED)
        for loss in ("bce", "bpr", "mse")
        if loss != "mse" or model not in RANKS_ONLY
    ],
)


def load(path: Path) -> dict[str, Any]:
    """Return the yaml's keys and values."""
    return {str(key): value for key, value in OmegaConf.load(path).items()}


@EVERY_YAML
def test_yaml_gives_every_argument_and_is_the_only_home_of_defaults(path: Path) -> None:
    config = load(path)
    chosen = get_class(config["_target_"])
    assert chosen is LocalTraining
    assert set(config) - {"_target_", "name"} == {field.name for field in fields(chosen)}
    assert all(field.default is MISSING for field in fields(chosen))
    assert isinstance(build("training", config), LocalTraining)


@EVERY_YAML
@pytest.mark.parametrize(
    "impossible",
    [
        {"local_epochs": 0},
        {"batch_size": 0},
        {"num_negatives": 0},
        {"memory_budget_mb": 0},
        {"learning_rate": -0.1},
        {"dense_learning_rate": -0.1},
        {"weight_decay": -0.1},
    ],
    ids=lambda impossible: next(iter(impossible)),
)
def test_value_out_of_range_is_an_error(path: Path, impossible: dict[str, Any]) -> None:
    [(name, value)] = impossible.items()
    with pytest.raises(ConfigError, match=rf"training\.{name}.*{value}"):
        build("training", load(path) | impossible)


@EVERY_YAML
@pytest.mark.parametrize(
    "unknown", [{"engine": "fast"}, {"loss": "hinge"}, {"optimizer": "adagrad"}]
)
def test_unknown_choice_is_an_error_with_the_known_ones(
    path: Path, unknown: dict[str, str]
) -> None:
    [(name, value)] = unknown.items()
    with pytest.raises(ConfigError, match=rf"training\.{name}='{value}' .*'\w+'"):
        build("training", load(path) | unknown)


@EVERY_YAML
@EVERY_MODEL_AND_LOSS
@pytest.mark.parametrize("engine", ["sequential", "vectorized"])
def test_model_fits_its_training_data_with_every_loss_and_trainer(
    federate: "Federate", path: Path, model: str, engine: str, loss: str
) -> None:
    ran = federate(
        f"training={path.stem}",
        f"model={model}",
        f"training.engine={engine}",
        f"training.loss={loss}",
        "task=rating" if loss == "mse" else "task=ranking",
        "training.optimizer=adam",
        "training.learning_rate=0.05",
        "training.dense_learning_rate=0.02",
        "strategy.server_learning_rate=1.0",
        "evaluation.every=100",
        "num_rounds=6",
    )
    losses = list(ran.watcher.losses.values())
    assert losses[-1] < 0.95 * losses[0]

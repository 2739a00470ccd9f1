"""Every gradient-trained model also runs without communication, and centralised."""

from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import load_file

from fedrec_flower.experiment.composition import CONF

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

SOLVED = {"ease", "ials", "itemknn", "popularity", "random"}
# Learning rates are chosen for averaged updates; without averaging they are too large.
GENTLE = {
    "gru4rec": ("training.learning_rate=40",),
    "multvae": ("training.learning_rate=0.5",),
}
TRAINED = sorted({path.stem for path in (CONF / "model").glob("*.yaml")} - SOLVED)


@pytest.mark.parametrize("name", TRAINED)
def test_local_only_training_sends_no_bytes_and_reduces_the_loss(
    make_run: "MakeRun", name: str
) -> None:
    words = (f"model={name}", "strategy=local_only", "num_rounds=2", *GENTLE.get(name, ()))
    run = make_run(*words)
    assert run.summary["status"] == "completed"
    assert load_file(run.folder / "model.safetensors") == {}
    assert run.summary["bytes"]["down_per_client"] == 0
    first, last = run.values("train", "loss").values()
    assert last < first


@pytest.mark.parametrize("name", TRAINED)
def test_centralised_training_has_one_client_and_reduces_the_loss(
    make_run: "MakeRun", name: str
) -> None:
    run = make_run(f"model={name}", "federation=centralized", "num_rounds=2")
    assert (run.summary["status"], run.summary["num_clients"]) == ("completed", 1)
    first, last = run.values("train", "loss").values()
    assert last < first

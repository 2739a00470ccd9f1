"""Every trained model also runs alone on each client, and as one client that holds everything."""

from typing import TYPE_CHECKING

import pytest
from safetensors.numpy import load_file

from fedrec_flower.experiment.composition import CONF

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

SOLVED = {"ease", "ials", "itemknn", "popularity", "random"}
# Rates are found for federations: alone, what nobody averages overshoots.
GENTLE = {
    "gru4rec": ("training.learning_rate=40",),
    "multvae": ("training.learning_rate=0.5",),
}
TRAINED = sorted({path.stem for path in (CONF / "model").glob("*.yaml")} - SOLVED)


@pytest.mark.parametrize("name", TRAINED)
def test_local_only_sends_nothing_and_learns(make_run: "MakeRun", name: str) -> None:
    words = (f"model={name}", "strategy=local_only", "num_rounds=2", *GENTLE.get(name, ()))
    run = make_run(*words)
    assert run.summary["status"] == "completed"
    assert load_file(run.folder / "model.safetensors") == {}
    assert run.summary["bytes"]["down_per_client"] == 0
    first, last = run.values("train", "loss").values()
    assert last < first


@pytest.mark.parametrize("name", TRAINED)
def test_centralised_is_one_client_of_everybody_and_learns(make_run: "MakeRun", name: str) -> None:
    run = make_run(f"model={name}", "federation=centralized", "num_rounds=2")
    assert (run.summary["status"], run.summary["num_clients"]) == ("completed", 1)
    first, last = run.values("train", "loss").values()
    assert last < first

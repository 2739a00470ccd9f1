"""An error of the user is one sentence with a fix, without a traceback."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.conftest import Command

MISTAKES = {
    "a misspelt group": ("modle=mf", "modle does not exist: did you mean model?"),
    "a misspelt key": (
        "model.embeding_dim=3",
        "model.embeding_dim does not exist: did you mean model.embedding_dim?",
    ),
    "a key without its group": (
        "embedding_dim=3",
        "embedding_dim does not exist: did you mean model.embedding_dim?",
    ),
    "a key like no other": (
        "model.colour=red",
        "model.colour does not exist: choose from model.name, model.embedding_dim, model.init_std",
    ),
    "a misspelt addition": ("+num_round=3", "num_round does not exist: did you mean num_rounds?"),
    "a misspelt addition to a group": (
        "+model.embeding_dim=3",
        "model.embeding_dim does not exist: did you mean model.embedding_dim?",
    ),
    "an unknown choice": ("model=nfc", "model=nfc does not exist: choose from "),
    "an unknown experiment": ("experiment=x", "experiment=x does not exist: choose from "),
    "a word for a number": ("seed=abc", "seed=abc is of a wrong kind: give a whole number"),
    "a fraction for a count": ("num_rounds=1.5", "num_rounds=1.5 is of a wrong kind: give a whole"),
    "nothing for a number": ("seed=null", "seed=null is of a wrong kind: it needs a value"),
    "a word for a group's number": (
        "model.embedding_dim=abc",
        "model.embedding_dim='abc' is of a wrong kind: input should be a valid integer",
    ),
    "a word that is no option": (
        "training.optimizer=adm",
        "training.optimizer='adm' is of a wrong kind: input should be 'sgd' or 'adam'",
    ),
    "a reference to nothing": (
        "model.embedding_dim=${dim}",
        "model.embedding_dim refers to dim, which does not exist",
    ),
    "several values without a sweep": (
        "seed=1,2",
        "seed=1,2 holds several values: add --multirun to run each",
    ),
    "a server optimizer without its strategy": (
        "server_optimizer=fedavg",
        "server_optimizer is a part of some strategies, such as scaffold: write ",
    ),
    "a choice made twice": ("+model=ncf", "model is chosen already: write it without the +"),
    "a choice taken away": ("~model", "model has no value: add model="),
    "a negative seed": ("seed=-1", "seed=-1 is impossible: give 0 or more"),
    "a negative number of rounds": ("num_rounds=-1", "num_rounds=-1 is impossible: give 0 or more"),
    "no time to reply": ("reply_timeout=0", "reply_timeout=0.0 is impossible: give more than 0"),
    "more clients a round than clients": (
        "clients_per_round=61",
        "clients_per_round=61 is impossible: choose between 1 and 60",
    ),
    "more clients evaluated than clients": (
        "evaluation.num_clients=61",
        "evaluation.num_clients=61 is impossible: choose between 1 and 60",
    ),
    "more nodes than clients": (
        "federation.num_nodes=61",
        "federation.num_nodes=61 is impossible with 60 clients",
    ),
    "no node": ("federation.num_nodes=0", "federation.num_nodes=0 is impossible with 60 clients"),
    "more silos than users": (
        "partition=silo_random partition.num_clients=61",
        "partition.num_clients=61 is impossible with 60 users: choose from 1 to 60",
    ),
    "an attribute that users lack": ("partition=silo_attribute", "occupation"),
    "a k above the catalogue": (
        "evaluation.metrics=[hr@500]",
        "evaluation.metrics=['hr@500'] are all at a k above the catalogue of 200 items: lower k",
    ),
    "an unknown metric": ("evaluation.metrics=[foo@5]", "there is no metric foo@5: choose from"),
    "a selection by what is not measured": (
        "evaluation.select_by=hr@7",
        "evaluation.select_by=hr@7 is not computed; choose from",
    ),
    "ratings by a loss that ranks": (
        "task=rating training.loss=bpr",
        "training.loss=bpr cannot predict ratings: choose mse",
    ),
    "ratings by a model that ranks": (
        "model=ease task=rating",
        "EASE ranks and cannot predict ratings: choose task=ranking or another model",
    ),
    "a mean of what must be solved": (
        "model=ease strategy=fedadam",
        "FedAdam does not fit EASE, which is solved from sums: choose strategy=sums",
    ),
    "a solution of what must be averaged": (
        "model=mf strategy=sums",
        "strategy=sums does not fit MF, which is trained by gradients: choose strategy=fedavg or",
    ),
    "a history for who reads none": (
        "model=mf evaluation.test_history=train_and_validation",
        "evaluation.test_history=train_and_validation has no effect on MF",
    ),
    "rates that diverge": (
        "training.learning_rate=1e30",
        "finite; lower training.learning_rate",
    ),
    "data that are nowhere named": (
        "~experiment federation=in_process dataset=file",
        "dataset.path has no value: add dataset.path=",
    ),
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_error_names_value_and_fix(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, words: str, said: str
) -> None:
    base = smoke[1:] if "experiment" in words else smoke
    ended = command(*base, f"output_dir={tmp_path / 'run'}", *words.split())
    assert said in ended.sentence()


@pytest.mark.parametrize("word", ["seed", "seed=[1", "--nonsense", "--resolve"])
def test_wrong_usage_has_exit_code_2(command: "Command", word: str) -> None:
    ended = command(word)
    assert ended.code == 2
    assert "error: " in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


def test_closed_pipe_is_not_an_error() -> None:
    words = [sys.executable, "-m", "fedrec_flower", "--help"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # as `head` does
        assert process.stderr.read() == b""


def test_hydra_full_error_shows_the_traceback(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    from fedrec_flower.core.errors import ConfigError

    words = (*smoke, "clients_per_round=61", f"output_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match="clients_per_round=61"):
        command(*words, full_error="1")


def test_failed_run_records_its_error_and_keeps_its_results(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    from tests.integration.conftest import Run

    folder = tmp_path / "run"
    said = command(*smoke, "training.learning_rate=1e30", f"output_dir={folder}").sentence()
    run = Run(folder)
    assert run.summary["status"] == "failed"
    assert run.summary["error"] == said
    assert list(run.values("validation", "ndcg@10")) == [0]
    assert not list(folder.glob(".*"))


# --- repeating a run --------------------------------------------------------------------------


REPEATED = {
    "modle=mf": "modle does not exist: did you mean model?",
    "seed=abc": "seed=abc is of a wrong kind: give a whole number",
    "model=ncf": "model=ncf cannot be chosen here: set the values below model one by one",
}


@pytest.mark.parametrize(("word", "said"), REPEATED.items(), ids=REPEATED.keys())
def test_error_in_a_repeated_run_names_value_and_fix(
    command: "Command", earlier: Path, tmp_path: Path, word: str, said: str
) -> None:
    ended = command("--config-path", str(earlier), word, f"output_dir={tmp_path / 'run'}")
    assert said in ended.sentence()


def test_config_path_of_a_folder_without_a_run_is_an_error(
    command: "Command", tmp_path: Path
) -> None:
    said = command("--config-path", str(tmp_path)).sentence()
    assert said == "there is no config.yaml there: give --config-path the folder of a run"
    said = command("--config-path", str(tmp_path / "nowhere")).sentence()
    assert said == f"{tmp_path / 'nowhere'} is not a folder: give --config-path the folder of a run"

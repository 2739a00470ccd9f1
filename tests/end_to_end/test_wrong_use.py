"""A mistake costs one sentence on what to change: no traceback, no half-open door."""

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Command, Ended

PROGRESS = re.compile(r"round \d+/\d+ ")


def sentence(ended: "Ended", code: int = 1) -> str:
    """The one sentence on stderr; whatever training showed before may stand above it."""
    assert ended.code == code, ended
    *before, last = ended.err.splitlines()
    assert all(PROGRESS.match(line) for line in before), ended.err
    assert last.startswith("error: ")
    assert "bug" not in last
    return last.removeprefix("error: ")


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
    "an unknown choice": ("model=nfc", "model=nfc does not exist: choose from mf, ncf"),
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
    "a choice made twice": ("+model=ncf", "model is chosen already: write it without the +"),
    "a choice taken away": ("~model", "model has no value: add model="),
    "a negative seed": ("seed=-1", "seed=-1 is impossible: give 0 or more"),
    "a negative number of rounds": ("num_rounds=-1", "num_rounds=-1 is impossible: give 0 or more"),
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
        "500 items was asked for, the catalogue has 200: lower k in evaluation.metrics",
    ),
    "an unknown metric": ("evaluation.metrics=[foo@5]", "there is no metric foo@5: choose from"),
    "a selection by what is not measured": (
        "evaluation.select_by=hr@7",
        "evaluation.select_by=hr@7 is not computed; choose from",
    ),
    "more negatives than unseen items": (
        "evaluation.num_negatives=199",
        "items left to rank against, evaluation.num_negatives asks for 199: lower it",
    ),
    "ratings by a loss that ranks": (
        "task=rating training.loss=bpr",
        "training.loss=bpr cannot predict ratings: choose mse",
    ),
    "rates that diverge": ("training.learning_rate=1e30", "is nan; lower training.learning_rate"),
    "data that are nowhere named": (
        "~experiment federation=in_process dataset=file",
        "dataset.path has no value: add dataset.path=",
    ),
}


@pytest.mark.parametrize(("words", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_its_mend(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, words: str, said: str
) -> None:
    base = smoke[1:] if "experiment" in words else smoke
    ended = command(*base, f"output_dir={tmp_path / 'run'}", *words.split())
    assert said in sentence(ended)


@pytest.mark.parametrize("word", ["seed", "seed=[1", "--nonsense", "--resolve"])
def test_wrong_usage_has_an_exit_code_of_its_own(command: "Command", word: str) -> None:
    ended = command(word)
    assert ended.code == 2
    assert "error: " in ended.err.splitlines()[-1]
    assert "Traceback" not in ended.err


def test_whoever_asks_for_the_traceback_gets_it(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    from fedrec_flower.errors import ConfigError

    words = (*smoke, "clients_per_round=61", f"output_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match="clients_per_round=61"):
        command(*words, full_error="1")


def test_a_failed_run_says_why_and_keeps_what_it_had(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    from tests.end_to_end.conftest import Run

    folder = tmp_path / "run"
    said = sentence(command(*smoke, "training.learning_rate=1e30", f"output_dir={folder}"))
    run = Run(folder)
    assert run.summary["status"] == "failed"
    assert run.summary["error"] == said
    assert list(run.values("validation", "ndcg@10")) == [0]
    assert not list(folder.glob(".*"))


@pytest.fixture(scope="module")
def earlier(
    command: "Command", smoke: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("earlier") / "run"
    assert command(*smoke, "num_rounds=0", f"output_dir={folder}").code == 0
    return folder


# --- folders and files ------------------------------------------------------------------------


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A place where even root can make no folder: below a file."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "below"


def test_an_output_folder_that_cannot_be_made(
    command: "Command", smoke: tuple[str, ...], no_folder: Path
) -> None:
    said = sentence(command(*smoke, f"output_dir={no_folder}"))
    assert str(no_folder) in said
    assert "set output_dir=" in said


def test_an_output_folder_that_holds_a_run(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*smoke, "num_rounds=0", f"output_dir={tmp_path / 'run'}")
    assert command(*words).code == 0
    before = (tmp_path / "run" / "summary.json").read_text()
    said = sentence(command(*words))
    assert said.startswith(f"{tmp_path / 'run'} already holds a run: set output_dir=")
    assert (tmp_path / "run" / "summary.json").read_text() == before


def test_a_cache_that_cannot_be_written(
    command: "Command", smoke: tuple[str, ...], no_folder: Path, tmp_path: Path
) -> None:
    words = (*smoke, f"dataset.cache_dir={no_folder}", f"output_dir={tmp_path / 'run'}")
    said = sentence(command(*words))
    assert str(no_folder) in said
    assert "set dataset.cache_dir=" in said


@pytest.mark.parametrize("damage", ["truncated", "removed", "emptied"])
def test_a_damaged_cache_is_built_again_without_a_word(
    smoke: tuple[str, ...], tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    from fedrec_flower.cli import compose
    from fedrec_flower.experiment import prepare_data

    config, _ = compose([*smoke, f"dataset.cache_dir={tmp_path}"])
    column = prepare_data(config).path / "train_item.npy"
    whole = column.read_bytes()
    if damage == "removed":
        column.unlink()
    else:
        column.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
    again = prepare_data(config)
    assert again.path == column.parent
    assert column.read_bytes() == whole
    assert capfd.readouterr() == ("", "")


@contextmanager
def files_no_longer_than(num_bytes: int) -> Iterator[None]:
    """Like a disk that is full: writing beyond is refused by the system."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# What does not fit: the configuration; the rounds; personal parameters; a figure.
@pytest.mark.parametrize("num_bytes", [200, 1500, 10_000, 40_000])
@pytest.mark.usefixtures("earlier")  # its prepared data fit: it is the run folder that does not
def test_a_full_disk(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, num_bytes: int
) -> None:
    words = (*smoke, "num_rounds=1", "model.embedding_dim=32", f"output_dir={tmp_path / 'run'}")
    with files_no_longer_than(num_bytes):
        ended = command(*words)
    said = sentence(ended)
    assert str(tmp_path / "run") in said
    assert "space" in said
    assert "File too large" in said
    assert not list((tmp_path / "run").rglob("*.partial"))


def test_a_full_disk_under_the_cache(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*smoke, f"dataset.cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path / 'run'}")
    with files_no_longer_than(3000):
        said = sentence(command(*words))
    assert str(tmp_path / "cache") in said
    assert "free space or set dataset.cache_dir=" in said
    assert list((tmp_path / "cache" / "prepared").iterdir()) == []


# --- the user's own data ----------------------------------------------------------------------


def test_data_that_are_not_there(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path
) -> None:
    missing = tmp_path / "nowhere.csv"
    words = (f"dataset.path={missing}", f"output_dir={tmp_path / 'run'}")
    said = sentence(command(*own_data, *words))
    assert said.startswith(f"{missing} cannot be read (No such file or directory)")


def test_a_folder_for_a_file(command: "Command", own_data: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "data.csv").mkdir()
    words = (f"dataset.path={tmp_path / 'data.csv'}", f"output_dir={tmp_path / 'run'}")
    said = sentence(command(*own_data, *words))
    assert said.startswith(f"{tmp_path / 'data.csv'} cannot be read (Is a directory)")


@pytest.fixture
def changed_data(ratings: Path, tmp_path: Path) -> Path:
    """Where a changed copy of the user's own file may be written."""
    copy = tmp_path / "changed.csv"
    copy.write_text(ratings.read_text())
    return copy


def test_a_split_longer_than_a_history(
    command: "Command", own_data: tuple[str, ...], changed_data: Path, tmp_path: Path
) -> None:
    frame = pd.read_csv(changed_data, dtype=str)
    short = frame["user_id"].eq("017").cumsum() > 2
    frame[~(short & frame["user_id"].eq("017"))].to_csv(changed_data, index=False)
    words = (f"dataset.path={changed_data}", f"output_dir={tmp_path / 'run'}")
    said = sentence(command(*own_data, *words))
    assert said.startswith("user 017 has 2 interactions and this split needs 3")
    assert said.endswith("set dataset.min_interactions=3")


def test_a_bad_cell_is_named_by_line(
    command: "Command", own_data: tuple[str, ...], changed_data: Path, tmp_path: Path
) -> None:
    lines = changed_data.read_text().splitlines()
    user, item, _, time = lines[6].split(",")
    lines[6] = f"{user},{item},good,{time}"
    changed_data.write_text("\n".join(lines))
    words = (f"dataset.path={changed_data}", f"output_dir={tmp_path / 'run'}")
    said = sentence(command(*own_data, *words))
    assert str(changed_data) in said
    assert "line 7" in said
    assert "rating" in said


def test_ratings_wanted_of_data_without_any(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path
) -> None:
    words = ("task=rating", "dataset.columns.rating=null", f"output_dir={tmp_path / 'run'}")
    base = [word for word in own_data if not word.startswith("evaluation.num_negatives")]
    said = sentence(command(*base, *words))
    assert said == "task=rating needs ratings and these data have none: set task=ranking"


@pytest.mark.parametrize("split", ["leave_one_out", "leave_last_fraction", "temporal"])
def test_an_order_in_time_wanted_of_data_without_times(
    command: "Command", own_data: tuple[str, ...], tmp_path: Path, split: str
) -> None:
    words = ("dataset.columns.timestamp=null", f"output_dir={tmp_path / 'run'}", f"split={split}")
    said = sentence(command(*own_data, *words))
    assert "has no timestamps" in said
    assert "use split=random" in said


# --- repeating a run --------------------------------------------------------------------------


REPEATED = {
    "modle=mf": "modle does not exist: did you mean model?",
    "seed=abc": "seed=abc is of a wrong kind: give a whole number",
    "model=ncf": "model=ncf cannot be chosen here: set the values below model one by one",
}


@pytest.mark.parametrize(("word", "said"), REPEATED.items(), ids=REPEATED.keys())
def test_a_mistake_while_repeating_a_run(
    command: "Command", earlier: Path, tmp_path: Path, word: str, said: str
) -> None:
    ended = command("--config-path", str(earlier), word, f"output_dir={tmp_path / 'run'}")
    assert said in sentence(ended)


def test_repeating_what_is_no_run(command: "Command", tmp_path: Path) -> None:
    said = sentence(command("--config-path", str(tmp_path)))
    assert said == "there is no config.yaml there: give --config-path the folder of a run"
    said = sentence(command("--config-path", str(tmp_path / "nowhere")))
    assert said == f"{tmp_path / 'nowhere'} is no folder: give --config-path the folder of a run"

"""However often a run is interrupted, what it leaves at last is what it would have left anyway."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import Message

from fedrec_flower import cli
from fedrec_flower.cli import compose
from fedrec_flower.errors import ConfigError, DataError
from fedrec_flower.experiment import run
from fedrec_flower.results import RunFolder, load_runs, resume
from fedrec_flower.seeding import generator
from tests.federations import Tap

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from tests.end_to_end.conftest import Command, MakeRun

    Start = Callable[..., subprocess.Popen[str]]

SAME = ("rounds.csv", "per_user.csv", "recommendations.csv", "clients.csv", "model.safetensors")
MODELS = {
    "mf": ("model=mf", "strategy=fedadam"),
    "ncf": ("model=ncf",),
    "pfedrec": ("model=pfedrec", "model.score_with=own"),
    "ials": ("model=ials", "strategy=sums"),
}
ROUNDS = ("num_rounds=9", "checkpoint_every=2", "evaluation.every=3")


def require_same(whole: Path, rest: Path) -> None:
    """The tables, the model, personal parameters and whatever the summary says but times."""
    for name in SAME:
        assert (rest / name).read_bytes() == (whole / name).read_bytes(), name
    personal = {path.name for path in (whole / "clients").iterdir()}
    assert {path.name for path in (rest / "clients").iterdir()} == personal
    for name in personal:
        assert (rest / "clients" / name).read_bytes() == (whole / "clients" / name).read_bytes()
    assert said(rest) == said(whole)
    assert {path.name for path in (rest / "figures").iterdir()} == {
        path.name for path in (whole / "figures").iterdir()
    }
    assert not (rest / "checkpoints").exists()


def said(folder: Path) -> dict[str, Any]:
    summary = json.loads((folder / "summary.json").read_text())
    own = ("seconds", "clients_per_second", "resumed_after", "overrides")
    return {k: v for k, v in summary.items() if k not in own and not k.startswith("peak_")}


def last_checkpoint(folder: Path) -> int:
    """The round of the last checkpoint, 0 if there is none."""
    files = (folder / "checkpoints").glob("round-*.checkpoint")
    return max((int(file.stem.removeprefix("round-")) for file in files), default=0)


# --- in one process -----------------------------------------------------------------------------


class Interrupted:
    """Ctrl-C at a message: lets so many pass."""

    def __init__(self, messages: int) -> None:
        self.left = messages

    def __call__(self, asked: list[Message], replies: list[Message]) -> list[Message]:
        self.left -= len(asked)
        if self.left < 0:
            raise KeyboardInterrupt
        return replies


def interrupted(words: list[str], folder: Path, messages: int) -> None:
    """Begin a run, and interrupt it."""
    config, _ = compose(words)
    with pytest.raises(KeyboardInterrupt):
        run(config, RunFolder.create(folder, "seed: 1\n"), Tap(1, Interrupted(messages)))
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"


def go_on(words: list[str], folder: Path, messages: int | None = None) -> Tap:
    """Go on with a run, and perhaps interrupt it again."""
    config, _ = compose(words)
    taken = resume(folder, "seed: 1\n")
    assert taken is not None
    tap = Tap(1, lambda _, replies: replies) if messages is None else Tap(1, Interrupted(messages))
    run(config, taken, tap)
    return tap


def kinds(tap: Tap) -> list[str]:
    return [message.metadata.message_type for message in tap.asked]


# What a node is asked: a query, an evaluation of the untrained, then for rounds 1 to 9 training
# and every third evaluation, and snapshots for the checkpoints between.
ALL = 1 + 1 + 9 + 3 + 3 + 1


SLOW = pytest.mark.slow  # `equivalence/test_resuming` runs them all, without tables and figures


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=() if m == "pfedrec" else SLOW) for m in MODELS]
)
def test_an_interrupted_run_ends_like_one_that_was_not(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, model: str
) -> None:
    words = [*smoke, *MODELS[model], *ROUNDS, "federation.num_nodes=1"]
    whole = _whole(make_run, tuple(words))
    moment = int(generator(1, "interruption", 0, len(model)).integers(6, ALL - 1))
    interrupted(words, tmp_path / "run", moment)
    began_after = last_checkpoint(tmp_path / "run")
    assert began_after >= 2
    tap = go_on(words, tmp_path / "run")
    require_same(whole, tmp_path / "run")
    assert kinds(tap).count("train") == 9 - began_after
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["resumed_after"] == [began_after]
    assert json.loads((whole / "summary.json").read_text())["resumed_after"] == []


def test_a_run_may_be_interrupted_again_and_again(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fedrec_flower")
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    whole, folder = _whole(make_run, tuple(words)), tmp_path / "run"
    interrupted(words, folder, 1)  # before there is anything to go on from
    for _ in range(3):  # a checkpoint further each time
        with pytest.raises(KeyboardInterrupt):
            go_on(words, folder, messages=5)
    go_on(words, folder)
    require_same(whole, folder)
    told = [m for m in caplog.messages if "unfinished" in m]
    assert told[0] == f"{folder} holds this very run, unfinished: started anew"
    assert told[1] == f"{folder} holds this very run, unfinished: goes on after round 2"
    seconds = json.loads((folder / "summary.json").read_text())["seconds"]
    assert seconds["total"] >= seconds["setup"] + seconds["train"] + seconds["evaluate"] - 1e-6


def test_a_run_interrupted_after_its_last_round_trains_no_more(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    interrupted(words, tmp_path / "run", ALL - 1)
    tap = go_on(words, tmp_path / "run")
    assert kinds(tap) == ["query", "evaluate"]
    require_same(_whole(make_run, tuple(words)), tmp_path / "run")


def test_a_damaged_checkpoint_costs_the_rounds_since_the_one_before(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    folder = tmp_path / "run"
    interrupted(words, folder, ALL - 2)
    last = folder / "checkpoints" / "round-8.checkpoint"
    last.write_bytes(last.read_bytes()[:-1] + b"?")
    tap = go_on(words, folder)
    assert f"{last} is damaged, so the state before it is taken" in caplog.messages[0]
    assert kinds(tap).count("train") == 9 - 6
    require_same(_whole(make_run, tuple(words)), folder)


@pytest.mark.slow
def test_a_run_of_which_no_checkpoint_is_sound_is_started_anew(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    folder = tmp_path / "run"
    interrupted(words, folder, ALL - 2)
    (folder / "clients" / "current").rename(tmp_path / "current")
    for slot in (folder / "clients").iterdir():
        shutil.rmtree(slot)
    tap = go_on(words, folder)
    assert len(caplog.messages) >= 2
    assert kinds(tap).count("train") == 9
    require_same(_whole(make_run, tuple(words)), folder)


def test_a_run_does_not_go_on_with_other_data(smoke: tuple[str, ...], tmp_path: Path) -> None:
    words = [*smoke, *ROUNDS, "federation.num_nodes=1"]
    interrupted(words, tmp_path / "run", ALL - 2)
    with pytest.raises(DataError, match="was begun with other data"):
        go_on([*words, "dataset.seed=8"], tmp_path / "run")


@pytest.mark.slow
def test_without_checkpoints_a_run_is_started_anew(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = [*smoke, *ROUNDS, "checkpoint_every=null", "federation.num_nodes=1"]
    interrupted(words, tmp_path / "run", 12)
    assert not (tmp_path / "run" / "checkpoints").exists()
    tap = go_on(words, tmp_path / "run")
    assert kinds(tap).count("train") == 9
    require_same(_whole(make_run, tuple(words)), tmp_path / "run")


def test_checkpoints_change_no_number(make_run: "MakeRun", smoke: tuple[str, ...]) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    often = _whole(make_run, tuple(words))
    require_same(often, make_run("checkpoint_every=null", base=words).folder)


# --- by the command line ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(smoke: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as Ctrl-C leaves it, its configuration as the command line writes it."""
    words = [*smoke, *ROUNDS, "num_rounds=5"]
    config, text = compose(words)[0], cli._repeatable(cli._composed(words))
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(KeyboardInterrupt):
        run(config, RunFolder.create(folder, text), Tap(1, Interrupted(9)))
    assert last_checkpoint(folder) == 4
    return folder


@pytest.fixture
def unfinished(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, to be gone on with."""
    return shutil.copytree(begun, tmp_path / "unfinished")


def test_one_word_goes_on_with_a_run_and_says_so(command: "Command", unfinished: Path) -> None:
    configuration = (unfinished / "config.yaml").read_text()
    told = json.loads((unfinished / "summary.json").read_text())["overrides"]
    ended = command("resume=unfinished", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert "unfinished: goes on after round 4" in ended.err
    assert ended.out.splitlines()[-1] == "unfinished"
    summary = json.loads((unfinished / "summary.json").read_text())
    assert (summary["status"], summary["resumed_after"]) == ("completed", [4])
    assert summary["overrides"] == told
    assert (unfinished / "config.yaml").read_text() == configuration
    assert {path.name for path in unfinished.parent.iterdir()} == {"unfinished"}


def test_who_gave_up_may_be_told_to_be_patient(command: "Command", unfinished: Path) -> None:
    ended = command("resume=unfinished", "min_completion=0.1", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert "unfinished: goes on after round 4" in ended.err
    assert "min_completion: 0.1\n" in (unfinished / "config.yaml").read_text()


def test_a_finished_run_says_so_and_is_left_as_it_is(command: "Command", unfinished: Path) -> None:
    command("resume=unfinished", cwd=unfinished.parent)
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    ended = command("resume=unfinished", cwd=unfinished.parent)
    assert ended.code == 0
    assert "finished: not run again" in ended.err
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before


def test_a_folder_may_have_any_name(command: "Command", unfinished: Path) -> None:
    name = "ä 'folder', {with} [odd=signs]"
    unfinished.rename(unfinished.parent / name)
    ended = command(f"resume={name}", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == name


@pytest.mark.parametrize("word", ["model=ncf", "num_rounds=9", "-m", "--cfg=job"])
def test_whoever_goes_on_with_a_run_says_nothing_else(
    command: "Command", unfinished: Path, word: str
) -> None:
    said_ = command("resume=unfinished", word, cwd=unfinished.parent).sentence()
    assert said_ == (
        "resume=unfinished goes on with the configuration in that folder: leave out " + word
    )


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_what_is_no_run_cannot_go_on(command: "Command", tmp_path: Path, folder: str) -> None:
    said_ = command(f"resume={folder}", cwd=tmp_path).sentence()
    assert said_.startswith(f"resume={folder} is no run (it has no config.yaml): give the folder")


def test_resume_null_is_an_ordinary_run(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ended = command(*smoke, "resume=null", "num_rounds=0", "output_dir=run", cwd=tmp_path)
    assert ended.code == 0, ended.err


def test_python_goes_on_by_the_folder_and_not_by_a_word() -> None:
    with pytest.raises(ConfigError, match=r"resume= is for the command line alone"):
        compose(["resume=somewhere"])


def test_a_sweep_goes_on_with_an_unfinished_job(
    command: "Command", smoke: tuple[str, ...], unfinished: Path
) -> None:
    sweep = unfinished.parent / "sweep"
    sweep.mkdir()
    unfinished.rename(sweep / "0")
    # With fewer checkpoints: they change no number, so it is the same run.
    words = (*smoke, *ROUNDS, "num_rounds=5", "checkpoint_every=4", "seed=1,2")
    ended = command("-m", *words, f"output_dir={sweep}")
    assert ended.code == 0, ended.err
    assert "unfinished: goes on after round 4" in ended.err
    after = [json.loads((sweep / job / "summary.json").read_text()) for job in "01"]
    assert [summary["resumed_after"] for summary in after] == [[4], []]
    assert {summary["status"] for summary in after} == {"completed"}


@pytest.mark.parametrize(
    ("word", "mend"),
    [
        ("checkpoint_every=0", "checkpoint_every=0 is impossible: give 1 or more"),
        ("patience=0", "patience=0 is impossible: give 1 or more"),
        ("checkpoint_every=often", "checkpoint_every=often is of a wrong kind"),
    ],
)
def test_an_impossible_value_is_one_sentence(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, word: str, mend: str
) -> None:
    assert command(*smoke, word, "output_dir=run", cwd=tmp_path).sentence().startswith(mend)


# --- early stopping -----------------------------------------------------------------------------

HASTY = ("num_rounds=60", "evaluation.every=1", "patience=3", "training.learning_rate=3.0")


def test_a_run_that_stops_early_leaves_everything(make_run: "MakeRun") -> None:
    stopped = make_run(*HASTY)
    summary = stopped.summary
    scores = stopped.values("validation", "ndcg@10")
    best = max(scores, key=lambda round_: (scores[round_], -round_))
    assert summary["status"] == "completed"
    assert summary["selected_round"] == best
    assert summary["stopped_at"] == max(scores) == best + 3
    assert (stopped.folder / "model.safetensors").exists()
    assert len(stopped.table("per_user")) == summary["num_test_users"]
    assert len(list((stopped.folder / "figures").glob("*.png"))) == 4
    whole = make_run(*HASTY, f"num_rounds={summary['stopped_at']}")
    for name in SAME:
        assert (whole.folder / name).read_bytes() == (stopped.folder / name).read_bytes()
    assert whole.summary["stopped_at"] is None


@pytest.mark.slow
def test_a_run_that_stopped_early_does_not_go_on_training(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = [*smoke, *HASTY, "checkpoint_every=1000", "federation.num_nodes=1"]
    stopped = _whole(make_run, tuple(words))
    messages = 2 + 2 * json.loads((stopped / "summary.json").read_text())["stopped_at"]
    interrupted(words, tmp_path / "run", messages)
    assert kinds(go_on(words, tmp_path / "run")) == ["query", "evaluate"]
    require_same(stopped, tmp_path / "run")


def test_patience_needs_something_to_wait_for(make_run: "MakeRun") -> None:
    with pytest.raises(ConfigError, match="patience=2 waits for better validation, but no"):
        make_run("patience=2", "split=random", "split.validation_fraction=0.0")


# --- killed -------------------------------------------------------------------------------------

LONG = ("num_rounds=18", "checkpoint_every=3", "evaluation.every=2")
GLANCE = 0.0002  # seconds: a checkpoint is written in milliseconds
CONTEXT = multiprocessing.get_context("forkserver")
Moment = Callable[[Path, int], bool]  # of a folder, and of the size that rounds.csv will reach


def _in_process(words: tuple[str, ...], log: Path) -> None:
    """What a terminal would start; the imports are behind it."""
    from fedrec_flower.cli import main

    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["fedrec_flower", *words]
    main()


@pytest.fixture(scope="module")
def start() -> "Callable[..., ForkServerProcess]":
    """Give words to the command line in a process that begins at once."""
    CONTEXT.set_forkserver_preload(["fedrec_flower.cli", "fedrec_flower.experiment"])

    def begin(*words: str, log: Path) -> "ForkServerProcess":
        process = CONTEXT.Process(target=_in_process, args=(words, log), daemon=True)
        process.start()
        return process

    return begin


def written(share: float) -> Moment:
    """When so much of rounds.csv is written."""
    return lambda folder, size: _size(folder / "rounds.csv") >= share * size


def appears(pattern: str) -> Moment:
    """When there is such a file."""
    return lambda folder, _: any(folder.glob(pattern))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


WRITING = "checkpoints/.round-*.checkpoint.partial"
MOMENTS: list[Moment] = [
    *(written(share) for share in generator(20, "kills").uniform(0, 1, 10)),
    *(appears(WRITING) for _ in range(4)),
    appears("config.yaml"),
    appears("checkpoints/round-3.checkpoint"),
    appears("per_user.csv"),
    appears("model.safetensors"),
    appears("clients/PRIVATE.txt"),
    appears("figures/*.png"),
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MOMENTS)))
def test_a_killed_run_is_gone_on_with_as_if_nothing_had_happened(
    start: "Callable[..., ForkServerProcess]",
    make_run: "MakeRun",
    smoke: tuple[str, ...],
    tmp_path: Path,
    number: int,
) -> None:
    words = (*smoke, *MODELS[list(MODELS)[number % len(MODELS)]], *LONG)
    whole = _whole(make_run, words)
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start(*words, f"output_dir={folder}", log=log)
    size = _size(whole / "rounds.csv")
    while process.is_alive() and not MOMENTS[number](folder, size):
        time.sleep(GLANCE)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    rest = start(f"resume={folder}", log=log)
    rest.join()
    assert rest.exitcode == 0, log.read_text()
    require_same(whole, folder)


@pytest.mark.slow
def test_a_run_killed_whenever_it_writes_a_checkpoint_ends_all_the_same(
    start: "Callable[..., ForkServerProcess]",
    make_run: "MakeRun",
    smoke: tuple[str, ...],
    tmp_path: Path,
) -> None:
    words = (*smoke, *MODELS["mf"], *LONG)
    whole = _whole(make_run, words)
    folder, log, cut_short = tmp_path / "run", tmp_path / "log", 0
    next_words = (*words, f"output_dir={folder}")
    for _ in range(4):
        process, before = start(*next_words, log=log), last_checkpoint(folder)
        # One checkpoint is let through each time, or the run would never get on.
        while process.is_alive() and not (
            last_checkpoint(folder) > before and any(folder.glob(WRITING))
        ):
            time.sleep(GLANCE)
        process.kill()
        process.join()
        cut_short += any(folder.glob(WRITING))
        next_words = (f"resume={folder}",)
    rest = start(*next_words, log=log)
    rest.join()
    assert rest.exitcode == 0, log.read_text()
    assert cut_short, "no kill fell into the writing of a checkpoint"
    require_same(whole, folder)


@cache
def _whole(make_run: "MakeRun", words: tuple[str, ...]) -> Path:
    """The folder of the run that is not interrupted."""
    return make_run(base=words).folder


@pytest.mark.slow
def test_ctrl_c_leaves_a_folder_to_go_on_with(
    in_terminal: "Start", make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*smoke, *MODELS["mf"], *LONG)
    process = in_terminal(*words, "output_dir=run", cwd=tmp_path)
    while process.poll() is None and last_checkpoint(tmp_path / "run") < 6:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        "error: interrupted: the run folder keeps what the run had; resume=run goes on with it"
    )
    assert set(load_runs(tmp_path / "run")["status"]) == {"interrupted"}
    assert (tmp_path / "run" / "config.yaml").exists()
    rest = in_terminal("resume=run", cwd=tmp_path)
    _, err = rest.communicate(timeout=120)
    assert rest.returncode == 0, err
    require_same(_whole(make_run, words), tmp_path / "run")


@pytest.mark.slow
def test_a_killed_simulation_is_gone_on_with_as_if_nothing_had_happened(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    nodes = ("federation=simulation", "federation.num_nodes=2")
    words = (*smoke, *MODELS["pfedrec"], *ROUNDS, *nodes)
    for name in ("whole", "run"):
        process = in_terminal(*words, f"output_dir={name}", cwd=tmp_path)
        while name == "run" and process.poll() is None and not last_checkpoint(tmp_path / name):
            time.sleep(0.01)
        if name == "run":
            os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=300)
    rest = in_terminal("resume=run", cwd=tmp_path)
    _, err = rest.communicate(timeout=300)
    assert rest.returncode == 0, err
    require_same(tmp_path / "whole", tmp_path / "run")


# --- a full disk --------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes, in memory."""
    mount, unmount = which("mount"), which("umount")
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if not (mount and unmount and subprocess.run([mount, *options], check=False).returncode == 0):
        pytest.skip("mounting a small file system needs root's rights")
    yield tmp_path
    subprocess.run([unmount, str(tmp_path)], check=True)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1024))


@pytest.mark.slow
def test_a_disk_that_fills_up_costs_nothing_that_was_kept(
    in_terminal: "Start", make_run: "MakeRun", smoke: tuple[str, ...], small_disk: Path
) -> None:
    words = (*smoke, *MODELS["mf"], *LONG)
    folder, filler = small_disk / "run", small_disk / "filler"
    process = in_terminal(*words, "output_dir=run", cwd=small_disk)
    while process.poll() is None and last_checkpoint(folder) < 6:
        time.sleep(0.01)
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "No space left on device" in err.splitlines()[-1]
    assert "Traceback" not in err
    filler.unlink()
    rest = in_terminal("resume=run", cwd=small_disk)
    _, err = rest.communicate(timeout=120)
    assert rest.returncode == 0, err
    assert "goes on after round" in err
    require_same(_whole(make_run, words), folder)

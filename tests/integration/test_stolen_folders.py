"""Finding 9: an untrusted run folder is read as data and executes no code."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from fedrec_flower.core.instantiate import trusted
from fedrec_flower.experiment.transfer import SavedModel
from fedrec_flower.reports.load import load_runs

if TYPE_CHECKING:
    from tests.integration.conftest import Command

Settings = dict[str, Any]
Change = Callable[[Settings, Path], object]


def _target(group: str) -> Change:
    def change(settings: Settings, mark: Path) -> None:
        settings[group] = {"_target_": "subprocess.run", "args": ["touch", str(mark)], "name": "x"}

    return change


def _calls(mark: Path) -> Settings:
    return {"_target_": "subprocess.run", "args": ["touch", str(mark)]}


def _handlers(mark: Path) -> Settings:
    called = {"()": "subprocess.run", "args": ["touch", str(mark)]}
    return {"version": 1, "handlers": {"x": called}, "root": {"handlers": ["x"]}}


# Sections that would execute code or write a file if Hydra read config.yaml directly.
HYDRAS: dict[str, Callable[[Path], Settings]] = {
    "callbacks": lambda mark: {"callbacks": {"x": _calls(mark)}},
    "launcher": lambda mark: {"launcher": _calls(mark), "mode": "MULTIRUN"},
    "sweeper": lambda mark: {"sweeper": _calls(mark), "mode": "MULTIRUN"},
    "job_logging": lambda mark: {"job_logging": _handlers(mark)},
    "hydra_logging": lambda mark: {"hydra_logging": _handlers(mark)},
    "run.dir": lambda mark: {"run": {"dir": str(mark)}},
    "output_subdir": lambda mark: {"output_subdir": str(mark)},
}


@pytest.fixture
def stolen(earlier: Path, tmp_path: Path) -> Callable[[Change], tuple[Path, Path]]:
    """Change the config.yaml of a run that is not finished; returns its folder, and the mark."""

    def make(change: Change) -> tuple[Path, Path]:
        folder, mark = tmp_path / "stolen", tmp_path / "mark"
        shutil.copytree(earlier, folder)
        summary = folder / "summary.json"
        summary.write_text(summary.read_text().replace('"completed"', '"interrupted"'))
        settings = yaml.safe_load((folder / "config.yaml").read_text())
        change(settings, mark)
        (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        return folder, mark

    return make


@pytest.mark.parametrize("group", ["model", "strategy", "dataset", "federation", "privacy"])
@pytest.mark.parametrize("word", ["resume={}", "--config-path={}"])
def test_finding_9_target_in_a_run_folder_is_not_called(
    command: "Command", stolen: Callable[[Change], tuple[Path, Path]], group: str, word: str
) -> None:
    folder, mark = stolen(_target(group))
    words = [word.format(folder)]
    if word.startswith("--"):
        words.append(f"output_dir={folder.parent / 'again'}")
    ended = command(*words)
    said = ended.err.splitlines()[-1]
    assert ended.code == 1
    assert said.startswith(f"error: {group}._target_='subprocess.run' is refused"), said
    assert not mark.exists()


@pytest.mark.parametrize("section", HYDRAS)
@pytest.mark.parametrize("words", [("resume=stolen",), ("-cp", "stolen"), ("--config-p=stolen",)])
def test_finding_9_hydra_section_in_a_run_folder_is_not_read(
    command: "Command",
    stolen: Callable[[Change], tuple[Path, Path]],
    section: str,
    words: tuple[str, ...],
) -> None:
    def change(settings: Settings, mark: Path) -> None:
        settings["hydra"] |= HYDRAS[section](mark)

    folder, mark = stolen(change)
    again = () if words[0].startswith("resume") else ("output_dir=again",)
    ended = command(*words, *again, cwd=folder.parent)
    assert ended.code == 0, ended.err
    assert not mark.exists()
    assert {path.name for path in folder.parent.iterdir()} <= {"stolen", "again"}


def test_finding_9_interpolations_in_a_run_folder_are_not_resolved(
    command: "Command",
    stolen: Callable[[Change], tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(settings: Settings, _: Path) -> None:
        settings["dataset"]["name"] = "${oc.env:SECRET}"

    monkeypatch.setenv("SECRET", "a password")
    folder, _ = stolen(change)
    said = command(f"resume={folder}").sentence()
    assert "sets dataset.name=${oc.env:SECRET}, but a run records values only" in said
    assert "password" not in said


def test_finding_9_defaults_list_in_a_run_folder_is_rejected(
    command: "Command", stolen: Callable[[Change], tuple[Path, Path]]
) -> None:
    def change(settings: Settings, _: Path) -> None:
        settings["defaults"] = [*settings["defaults"], {"/hydra/launcher": "joblib"}]

    folder, _ = stolen(change)
    assert "has a defaults list of its own (" in command(f"resume={folder}").sentence()


@pytest.mark.parametrize(
    "text", ["a: [", "- 1", "!!python/object/apply:os.system [touch mark]", ""]
)
def test_finding_9_invalid_configuration_is_one_error(
    command: "Command", tmp_path: Path, text: str
) -> None:
    (tmp_path / "config.yaml").write_text(text)
    said = command(f"resume={tmp_path}", cwd=tmp_path).sentence()
    assert "configuration of a run" in said
    assert not (tmp_path / "mark").exists()


def test_finding_9_pickled_configuration_is_rejected(command: "Command", tmp_path: Path) -> None:
    assert "runs code" in command("--experimental-rerun=config.pickle", cwd=tmp_path).sentence()


def test_finding_9_plugins_are_accepted_on_the_command_line_only(
    command: "Command",
    stolen: Callable[[Change], tuple[Path, Path]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    package = tmp_path / "somebodys"
    package.mkdir()
    code = "from fedrec_flower.models import MF\nclass Theirs(MF): ...\n"
    (package / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FEDREC_FLOWER_PLUGINS", "")

    def change(settings: Settings, _: Path) -> None:
        settings["model"]["_target_"] = "somebodys.Theirs"

    folder, _ = stolen(change)
    assert "add plugins=[somebodys] on the command line" in command(f"resume={folder}").err
    ended = command(f"resume={folder}", "plugins=[somebodys]")
    assert ended.code == 0, ended.err
    assert "plugins" not in (folder / "config.yaml").read_text()
    assert trusted()[0] == "somebodys"


def test_finding_9_configuration_cannot_declare_plugins(
    command: "Command", stolen: Callable[[Change], tuple[Path, Path]]
) -> None:
    def change(settings: Settings, _: Path) -> None:
        settings["plugins"] = ["subprocess"]

    folder, _ = stolen(change)
    assert "plugins" in command(f"resume={folder}").sentence()


# --- A10: paths ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["output_dir", "init_from", "resume", "dataset.path"])
def test_a10_empty_path_is_rejected(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    more = ("dataset=file", "dataset.path=") if name == "dataset.path" else (f"{name}=",)
    said = command(*(more if name == "resume" else (*smoke, *more)), cwd=tmp_path).sentence()
    assert said == f"{name} is empty: give it a path, or leave it out"


@pytest.mark.parametrize("quote", ["", "'"])
def test_a10_paths_accept_tilde_and_any_letters(
    command: "Command",
    smoke: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quote: str,
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    words = (*smoke, "num_rounds=0", f"output_dir={quote}~/übung 1{quote}")
    assert command(*words, cwd=here).code == 0
    assert list(here.iterdir()) == []
    assert (home / "übung 1" / "summary.json").is_file()
    assert "completed" in command("resume=~/übung 1", cwd=here).err
    assert load_runs("~")["run"].unique().tolist() == ["übung 1"]
    assert SavedModel.read("~/übung 1").parameters
    started = command(*smoke, "num_rounds=0", "init_from=~/übung 1", "output_dir=r", cwd=here)
    assert started.code == 0, started.err


def test_a10_last_line_is_the_run_folder_also_with_chdir(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*smoke, "num_rounds=0", "output_dir=run", "hydra.job.chdir=true")
    ended = command(*words, cwd=tmp_path)
    assert ended.out.splitlines()[-1] == "run"

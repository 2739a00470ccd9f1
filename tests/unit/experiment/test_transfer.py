"""Starting from another run's shared parameters: items are matched by their original ids."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import save_file

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.data.interactions import Interactions
from fedrec_flower.data.sources.synthetic import Synthetic
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.transfer import SavedModel, transfer_parameters

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

TABLES = ["table"]


def saved(item_ids: list[Any], **parameters: Any) -> SavedModel:
    return SavedModel(Path("there"), parameters, [str(item) for item in item_ids], None)


@given(
    here=st.lists(st.integers(0, 30), unique=True, min_size=1),
    there=st.lists(st.integers(0, 30), unique=True, min_size=1),
)
def test_every_item_gets_its_own_row_or_keeps_what_was_drawn(
    here: list[int], there: list[int]
) -> None:
    if not set(here) & set(there):
        return
    fresh = {"table": np.full((len(here), 2), -1, np.float32), "rest": np.zeros(3, np.float32)}
    theirs = np.repeat(np.array(there, np.float32)[:, None], 2, 1)
    result = transfer_parameters(fresh, saved(there, table=theirs), np.array(here), TABLES)
    expected = [item if item in there else -1 for item in here]
    assert_array_equal(result["table"][:, 0], expected)
    assert_array_equal(result["rest"], fresh["rest"])  # the other run had none
    assert list(result) == list(fresh)


def test_dense_parameters_are_taken_over_whole_and_the_drawn_ones_stay_as_they_were() -> None:
    fresh = {"dense": np.zeros((2, 2), np.float32)}
    source = saved(["a"], dense=np.arange(4, dtype=np.float32).reshape(2, 2))
    result = transfer_parameters(fresh, source, np.array(["b"]), TABLES)
    assert_array_equal(result["dense"], source.parameters["dense"])
    assert not fresh["dense"].any()


def test_what_a_run_writes_is_read_back_from_its_folder_or_its_file(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    table = np.arange(6, dtype=np.float32).reshape(3, 2)
    folder.write_model({"table": table}, np.array(["x", "ü", "z"]))
    for source in (folder.path, folder.path / "model.safetensors"):
        model = SavedModel.read(str(source))
        assert model.item_ids == ["x", "ü", "z"]
        assert_array_equal(model.parameters["table"], table)


def test_of_several_versions_the_mean_over_clients_is_taken(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    several = np.array([[[1.0]], [[4.0]], [[100.0]]], np.float32)  # no client has the last one
    of_client = np.array([0, 1, 1])
    folder.write_model({"table": several, "versions": of_client}, np.array([5]))
    model = SavedModel.read(str(folder.path))
    assert_array_equal(model.parameters["table"], [[(1 + 4 + 4) / 3]])
    assert set(model.parameters) == {"table"}


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (
            saved([1], other=np.zeros((1, 2))),
            r"shares no parameter with this run: it has \['other'",
        ),
        (saved([9], table=np.zeros((1, 2))), r"has no item in common"),
        (
            saved([1], table=np.zeros((1, 3))),
            r"table has rows of shape \(3,\) in .* and \(2,\) here",
        ),
        (
            saved([1], table=np.zeros((1, 2)), dense=np.zeros(4)),
            r"dense is of shape \(4,\) in init_from=there and \(3,\) here: choose the same model",
        ),
    ],
    ids=["no parameter", "no item", "other rows", "other shape"],
)
def test_what_does_not_fit_is_refused_in_a_sentence(source: SavedModel, complaint: str) -> None:
    fresh = {"table": np.zeros((2, 2), np.float32), "dense": np.zeros(3, np.float32)}
    with pytest.raises(ConfigError, match=complaint):
        transfer_parameters(fresh, source, np.array([1, 2]), TABLES)


def test_a_file_that_is_none_of_a_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("no tensors")
    save_file({"table": np.zeros(2)}, tmp_path / "old.safetensors")
    for name, complaint in (
        ("missing", "contains no model: give the folder of a completed run"),
        ("", "contains no model"),
        ("text.safetensors", "cannot be read"),
        ("old.safetensors", "contains no item ids"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            SavedModel.read(str(tmp_path / name))


# --- in a federation --------------------------------------------------------------------------


def write(interactions: Interactions, users: slice, items: slice, path: Path) -> str:
    """Write the ratings of some users for some items to a file, with their original ids."""
    frame = pd.DataFrame(
        {
            "user_id": interactions.user,
            "item_id": interactions.item,
            "rating": interactions.rating,
            "timestamp": interactions.timestamp,
        }
    )
    chosen = frame["user_id"].between(users.start, users.stop - 1)
    chosen &= frame["item_id"].between(items.start, items.stop - 1)
    frame[chosen].to_csv(path, index=False)
    return str(path)


class Domains:
    """Two files without a common user, with two thirds of the items in common; and runs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        world = Synthetic("world", 460, 150, 16_000, 20, 8, 0.1, 0.8, 0.3, 3, None).load()
        self.files = {
            "source": write(world, slice(0, 400), slice(0, 125), folder / "source.csv"),
            "target": write(world, slice(400, 460), slice(25, 150), folder / "target.csv"),
        }

    def run(self, domain: str, num_rounds: int, *overrides: str) -> tuple[Path, float]:
        """Train on a domain; gives the run's folder and its test NDCG@10."""
        choices = ("federation=in_process", "dataset=file", f"dataset.path={self.files[domain]}")
        sizes = ("model.embedding_dim=16", f"num_rounds={num_rounds}", "evaluation.every=5")
        cache = ("dataset.min_interactions=4", f"dataset.cache_dir={self.folder}")
        config, _ = compose([*choices, *sizes, *cache, "evaluation.num_negatives=0", *overrides])
        folder = RunFolder.create(self.folder / str(len(list(self.folder.iterdir()))))
        summary = run(config, folder)
        return folder.path, summary["test"]["ndcg@10"]


@pytest.fixture(scope="module")
def domains(tmp_path_factory: pytest.TempPathFactory) -> Domains:
    return Domains(tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="module")
def source(domains: Domains) -> str:
    """The folder of a run on the source domain."""
    return str(domains.run("source", 20)[0])


def test_starting_from_a_related_domain_beats_starting_from_nothing(
    domains: Domains, source: str
) -> None:
    _, scratch = domains.run("target", 10)
    _, begun = domains.run("target", 10, f"init_from={source}")
    assert begun > 1.3 * scratch


def test_a_frozen_table_is_the_sources_for_ever(domains: Domains, source: str) -> None:
    folder, _ = domains.run("target", 5, f"init_from={source}", "freeze=[item_emb]")
    there, here = SavedModel.read(source), SavedModel.read(str(folder))
    name, row_of = "item_embedding.weight", {item: row for row, item in enumerate(there.item_ids)}
    common = [(row, row_of[item]) for row, item in enumerate(here.item_ids) if item in row_of]
    assert len(common) > 80
    ours, theirs = np.array(common).T
    assert_array_equal(here.parameters[name][ours], there.parameters[name][theirs])
    bias = "item_bias.weight"
    assert not np.allclose(here.parameters[bias][ours], there.parameters[bias][theirs])


def test_frozen_parameters_never_move_and_are_never_sent(federate: "Federate") -> None:
    ran = federate("model=ncf", "freeze=[item_emb,output]", "federation.num_nodes=2")
    initial = ran.setup.initial(ran.strategy)
    for name, value in initial.items():
        frozen = name.startswith(("item_emb", "output"))
        assert np.array_equal(ran.shared[name], value) == frozen
    sent = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    assert sent
    for reply in sent:
        assert not set(reply.content.array_records["update"]) & {
            "item_embedding.weight",
            "output.weight",
        }


@pytest.mark.parametrize("engine", ["vectorized", "sequential"])
def test_frozen_personal_parameters_stay_at_their_initial_values(
    federate: "Federate", engine: str
) -> None:
    ran = federate("model=mf", "freeze=[user_]", f"training.engine={engine}")
    before = federate("model=mf", "training.learning_rate=0.0", "num_rounds=1")
    name = "user_embedding.weight"
    assert_array_equal(ran.personal[name], before.personal[name])


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (("freeze=[nothing]",), r"freeze='nothing' names no parameter of MF: it has \['"),
        (("freeze=[user_,item_]",), r"freeze=.* leaves MF nothing to train: name fewer"),
        (("model=ease", "freeze=[item_]"), r"freeze=.* does not fit EASE, which is solved in"),
        (("model=ease", "init_from=there"), r"init_from=there does not fit EASE"),
        (("init_from=nowhere",), r"init_from=nowhere contains no model"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    federate: "Federate", overrides: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        federate(*overrides)

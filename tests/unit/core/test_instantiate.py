"""Laws of `config.build`: values are checked before anything is built, and errors name the fix."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from fedrec_flower.core import instantiate as config
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build, trust


@pytest.fixture(autouse=True)
def _plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The classes below are those of a plug-in."""
    monkeypatch.setenv("FEDREC_FLOWER_PLUGINS", __name__)


class Assigns:
    """A minimal partition."""

    def assign(self) -> None:
        """Not called here."""


@dataclass(frozen=True)
class Toy(Assigns):
    """One field of every kind of annotation that the package's constructors use."""

    num_items: int
    learning_rate: float
    is_rating: bool
    title: str
    variant: Literal["gmf", "mlp"]
    batch_size: int | None
    hidden_dims: list[int]


@dataclass(frozen=True)
class Named(Assigns):
    """A target with an argument `name`."""

    name: str


class Plain(Assigns):
    """A target that is not a dataclass."""

    def __init__(self, rate: float, depth: int = 2) -> None:
        self.rate, self.depth = rate, depth


def target(kind: type) -> str:
    return f"{__name__}.{kind.__name__}"


NODE: dict[str, Any] = {
    "_target_": target(Toy),
    "name": "toy",
    "learning_rate": 0.5,
    "is_rating": True,
    "title": "x",
    "variant": "gmf",
    "batch_size": 8,
    "hidden_dims": [4, 2],
}


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in NODE.items() if k != key}


def test_build_passes_node_keys_and_available_values() -> None:
    toy = build("partition", NODE, num_items=7, num_users=3)
    assert toy == Toy(
        7, 0.5, is_rating=True, title="x", variant="gmf", batch_size=8, hidden_dims=[4, 2]
    )


def test_build_passes_name_only_if_the_target_accepts_it() -> None:
    assert build("partition", {"_target_": target(Named), "name": "ml"}) == Named("ml")


def test_build_checks_plain_classes_and_keeps_their_defaults() -> None:
    plain = build("partition", {"_target_": target(Plain), "rate": 1})
    assert (plain.rate, plain.depth) == (1.0, 2)
    with pytest.raises(ConfigError, match=r"partition\.rate='fast' is of a wrong kind"):
        build("partition", {"_target_": target(Plain), "rate": "fast"})


@pytest.mark.parametrize(
    ("key", "value"),
    [("learning_rate", 1), ("batch_size", None), ("hidden_dims", []), ("variant", "mlp")],
)
def test_build_accepts_values_of_the_annotated_type(key: str, value: object) -> None:
    assert getattr(build("partition", NODE | {key: value}, num_items=7), key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", "0.1"),
        ("learning_rate", True),
        ("learning_rate", None),
        ("is_rating", 1),
        ("is_rating", "true"),
        ("title", 3),
        ("variant", "gnf"),
        ("batch_size", 8.0),
        ("batch_size", "8"),
        ("batch_size", True),
        ("hidden_dims", 4),
        ("hidden_dims", ["4"]),
        ("hidden_dims", [4.5]),
    ],
)
def test_build_rejects_values_of_another_type(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        build("partition", NODE | {key: value}, num_items=7)
    assert str(caught.value).startswith(f"partition.{key}={value!r} is of a wrong kind: ")
    assert "\n" not in str(caught.value)


def test_unknown_key_names_the_nearest_key() -> None:
    with pytest.raises(
        ConfigError, match=r"partition\.titel does not exist: did you mean partition\.title"
    ):
        build("partition", NODE | {"titel": "y"}, num_items=7)


def test_unknown_key_without_a_similar_one_lists_all_keys() -> None:
    with pytest.raises(
        ConfigError, match=r"partition\.qqq does not exist: choose from .*'batch_size'"
    ):
        build("partition", NODE | {"qqq": 1}, num_items=7)


def test_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"partition\.title is missing"):
        build("partition", without("title"), num_items=7)


def test_injected_value_cannot_be_configured() -> None:
    with pytest.raises(ConfigError, match=r"partition\.num_items"):
        build("partition", NODE | {"num_items": 3}, num_items=7)


@pytest.mark.parametrize(
    "path", [f"{__name__}.NoSuchClass", "fedrec_flower.data.partitions.base.no.Class"]
)
def test_target_that_cannot_be_imported_is_an_error(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("partition", NODE | {"_target_": path})
    assert str(caught.value).startswith(f"partition._target_={path!r} cannot be imported")


@pytest.mark.parametrize("path", ["Toy", "", "..", "os.path.", "a b.c", f"{__name__}.__main__", 3])
def test_target_that_is_not_a_class_path_is_an_error(path: object) -> None:
    with pytest.raises(ConfigError) as caught:
        build("partition", NODE | {"_target_": path})
    assert str(caught.value).startswith(f"partition._target_={path!r} is not a class")


def test_node_without_target_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"partition\._target_='' is not a class"):
        build("partition", without("_target_"))


# --- finding 9: configuration executes code -----------------------------------------------------

GROUPS = (
    *("model", "strategy", "privacy", "dataset", "split", "partition", "evaluation", "federation"),
    *("faults", "attack", "compression", "secure_aggregation", "training", "local"),
)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    "path",
    [
        *("subprocess.Popen", "os.system", "builtins.exec", "pathlib.Path", "no_such_module.Toy"),
        *(
            "fedrec_flower.core.instantiate.build",
            "fedrec_flower.cli.main.main",
            "fedrec_flower.__main__.main",
        ),
        *("tests.helpers.federations.Tap", "fedrec_flower_evil.models.Model"),
    ],
)
def test_finding_9_target_outside_its_group_is_rejected_before_its_import(
    monkeypatch: pytest.MonkeyPatch, group: str, path: str
) -> None:
    monkeypatch.setattr(config, "import_module", _never)
    with pytest.raises(ConfigError, match=r"is refused, because it belongs neither|is not a class"):
        build(group, {"_target_": path})


def _never(name: str) -> None:
    raise AssertionError(f"{name} was imported")


@pytest.mark.parametrize(
    ("group", "path"),
    [
        ("model", "fedrec_flower.models.ncf.F.relu"),
        ("model", "fedrec_flower.models.base.nn.Module"),
        ("model", "fedrec_flower.models.base.generator"),
        ("privacy", "fedrec_flower.privacy.noise.NoiseSource"),
        ("split", "fedrec_flower.data.splits.base.split_sha256"),
        ("dataset", "fedrec_flower.data.sources.download.Source"),
        ("federation", "fedrec_flower.federation.transport.simulation.Path"),
        ("strategy", f"{__name__}.Toy"),  # of a plug-in, but no strategy
    ],
)
def test_finding_9_target_of_another_kind_is_rejected(group: str, path: str) -> None:
    with pytest.raises(ConfigError, match=r"is refused: name a class with|cannot be imported"):
        build(group, {"_target_": path})


def test_finding_9_trust_allows_a_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "class Mine:\n    def assign(self): ...\n"
    (tmp_path / "some_plugin.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    node = {"_target_": "some_plugin.Mine"}
    with pytest.raises(ConfigError, match=r"add plugins=\[some_plugin\] on the command line"):
        build("partition", node)
    trust("[some_plugin]")
    assert type(build("partition", node)).__name__ == "Mine"


@pytest.mark.parametrize("packages", ["a.b", "[a b]", "1a", "../a"])
def test_trust_rejects_invalid_package_names(packages: str) -> None:
    with pytest.raises(ConfigError, match="is not a list of packages"):
        trust(packages)

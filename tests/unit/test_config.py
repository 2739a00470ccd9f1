"""Laws of `config.build`: values are checked before anything is built, and errors say the mend."""

from dataclasses import dataclass
from typing import Any, Literal

import pytest

from fedrec_flower.config import build
from fedrec_flower.errors import ConfigError


@dataclass(frozen=True)
class Toy:
    """One field of every kind of annotation that the package's constructors use."""

    num_items: int
    learning_rate: float
    is_rating: bool
    title: str
    variant: Literal["gmf", "mlp"]
    batch_size: int | None
    hidden_dims: list[int]


@dataclass(frozen=True)
class Named:
    """A target that wants its own name."""

    name: str


class Plain:
    """A target that is no dataclass."""

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


def test_the_target_gets_its_keys_and_what_the_run_knows_by_name() -> None:
    toy = build("model", NODE, num_items=7, num_users=3)
    assert toy == Toy(
        7, 0.5, is_rating=True, title="x", variant="gmf", batch_size=8, hidden_dims=[4, 2]
    )


def test_a_name_is_a_label_unless_the_target_wants_it() -> None:
    assert build("dataset", {"_target_": target(Named), "name": "ml"}) == Named("ml")


def test_a_plain_class_is_checked_like_a_dataclass_and_keeps_its_own_defaults() -> None:
    plain = build("model", {"_target_": target(Plain), "rate": 1})
    assert (plain.rate, plain.depth) == (1.0, 2)
    with pytest.raises(ConfigError, match=r"model\.rate='fast' is of a wrong kind"):
        build("model", {"_target_": target(Plain), "rate": "fast"})


@pytest.mark.parametrize(
    ("key", "value"),
    [("learning_rate", 1), ("batch_size", None), ("hidden_dims", []), ("variant", "mlp")],
)
def test_values_of_the_right_kind_are_taken(key: str, value: object) -> None:
    assert getattr(build("model", NODE | {key: value}, num_items=7), key) == value


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
def test_no_value_becomes_another_kind(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        build("model", NODE | {key: value}, num_items=7)
    assert str(caught.value).startswith(f"model.{key}={value!r} is of a wrong kind: ")
    assert "\n" not in str(caught.value)


def test_an_unknown_key_names_its_neighbour() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.titel does not exist: did you mean model\.title"
    ):
        build("model", NODE | {"titel": "y"}, num_items=7)


def test_an_unknown_key_without_a_neighbour_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"model\.qqq does not exist: known are .*'batch_size'"):
        build("model", NODE | {"qqq": 1}, num_items=7)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model\.title is missing"):
        build("model", without("title"), num_items=7)


def test_what_the_data_decide_cannot_be_configured() -> None:
    with pytest.raises(ConfigError, match=r"model\.num_items"):
        build("model", NODE | {"num_items": 3}, num_items=7)


@pytest.mark.parametrize(
    "path", ["no_such_module.Toy", f"{__name__}.NoSuchClass", "Toy", "", "..", "os.path."]
)
def test_a_target_that_cannot_be_imported_is_named(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build("model", NODE | {"_target_": path})
    assert str(caught.value).startswith(f"model._target_={path!r} cannot be imported")


def test_a_node_without_target_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\._target_='' cannot be imported"):
        build("model", without("_target_"))

"""`validate_config` finds errors of the configuration before data are prepared."""

from typing import Any

import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.experiment.compatibility import validate_config
from fedrec_flower.experiment.composition import CONF, compose


@pytest.fixture
def config() -> dict[str, Any]:
    """The default configuration."""
    return compose([])[0]


@pytest.mark.parametrize("group", ["model", "strategy", "privacy", "training", "federation"])
def test_unknown_option_of_a_group_is_found_before_anything_is_built(
    config: dict[str, Any], group: str
) -> None:
    config[group] = {**config[group], "no_such_option": 1}
    with pytest.raises(ConfigError, match=rf"{group}\.no_such_option does not exist"):
        validate_config(config, deployed=False)


@pytest.mark.parametrize(
    ("option", "value", "fix"),
    [
        ("num_rounds", -1, "num_rounds=-1 is impossible: give 0 or more"),
        ("min_completion", 1.5, "min_completion=1.5 is impossible: give 1 or less"),
        ("reply_timeout", 0.0, "reply_timeout=0.0 is impossible: give more than 0"),
        ("randomness", "dice", "randomness='dice' is of a wrong kind: input should be 'seeded' or"),
        ("release", "first", "release='first' is of a wrong kind: input should be 'validation' or"),
    ],
)
def test_root_value_out_of_range_names_value_and_fix(
    config: dict[str, Any], option: str, value: object, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(config | {option: value}, deployed=False)
    assert str(caught.value).startswith(fix)


def test_range_of_a_group_is_checked_by_its_annotation(config: dict[str, Any]) -> None:
    config["training"] = {**config["training"], "local_epochs": 0}
    with pytest.raises(ConfigError, match=r"training\.local_epochs=0 is impossible: give 1 or"):
        validate_config(config, deployed=False)


def test_every_choice_of_every_group_has_valid_names_types_and_ranges() -> None:
    groups = [
        *("dataset", "split", "partition", "strategy", "privacy", "secure_aggregation"),
        *("compression", "faults", "attack", "model"),
    ]
    names = [sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in groups]
    for row in range(max(map(len, names))):
        words = [f"{group}={n[row % len(n)]}" for group, n in zip(groups, names, strict=True)]
        needed = ["dataset.path=ratings.csv"] if "dataset=file" in words else []
        validate_config(compose([*words, *needed])[0], deployed=False)

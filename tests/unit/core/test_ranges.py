"""Types and ranges of settings are checked against annotations; errors name value and fix."""

from dataclasses import dataclass
from typing import Any

import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.ranges import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    check_fields,
    check_value,
)


@pytest.mark.parametrize(
    ("annotation", "value", "fix"),
    [
        (PositiveInt, 0, "give 1 or more"),
        (PositiveInt | None, 0, "give 1 or more"),
        (NonNegativeInt, -1, "give 0 or more"),
        (PositiveFloat, 0.0, "give more than 0"),
        (NonNegativeFloat, -0.5, "give 0 or more"),
        (NonNegativeFloat, float("nan"), "give 0 or more"),
        (Fraction, 1.5, "give 1 or less"),
    ],
)
def test_value_out_of_range_is_an_error_with_the_bound(
    annotation: Any, value: float, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_value("group.option", value, annotation)
    assert str(caught.value) == f"group.option={value!r} is impossible: {fix}"


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(PositiveInt, 1), (PositiveInt | None, None), (Fraction, 0), (PositiveFloat, float("inf"))],
)
def test_value_in_range_is_returned(annotation: Any, value: float | None) -> None:
    assert check_value("group.option", value, annotation) == value


def test_check_fields_checks_every_annotated_field() -> None:
    @dataclass
    class Settings:
        rate: NonNegativeFloat
        size: PositiveInt

    check_fields("group", Settings(0.0, 1))
    with pytest.raises(ConfigError, match=r"group\.size=0 is impossible: give 1 or more"):
        check_fields("group", Settings(0.0, 0))

"""Types and ranges of settings as annotations, such as `local_epochs: PositiveInt`.

`core.instantiate` checks the arguments of every constructor that a configuration names. A dataclass
that is also built in Python calls `check_fields` in its `__post_init__`.
"""

from dataclasses import fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from fedrec_flower.core.errors import ConfigError

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

_RANGE_ERRORS = {
    "greater_than_equal": ("ge", "give {} or more"),
    "greater_than": ("gt", "give more than {}"),
    "less_than_equal": ("le", "give {} or less"),
    "less_than": ("lt", "give less than {}"),
}


def check_value(path: str, value: Any, annotation: Any) -> Any:
    """Check a value against its annotation, without conversion of texts, numbers and booleans.

    Args:
        path: the option, for the message, such as "training.local_epochs".
        value: the value of the option.
        annotation: a type, possibly with a range: `Annotated[float, Field(gt=0)]`.

    Returns:
        The value; an integer becomes a float where the annotation is a float.

    Raises:
        ConfigError: if the value has another type, or is out of range; names value and fix.
    """
    try:
        return TypeAdapter(annotation).validate_python(value, strict=True)
    except PydanticSchemaGenerationError:
        return value  # the constructor checks what pydantic cannot
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] in _RANGE_ERRORS:
            key, fix = _RANGE_ERRORS[first["type"]]
            bound = first["ctx"][key]
            if isinstance(bound, float) and bound.is_integer():
                bound = int(bound)
            raise ConfigError(f"{path}={value!r} is impossible: {fix.format(bound)}") from error
        reason = first["msg"][0].lower() + first["msg"][1:]
        raise ConfigError(f"{path}={value!r} is of a wrong kind: {reason}") from error


def check_fields(group: str, settings: Any) -> None:
    """Check the fields of a dataclass whose annotation has a range.

    Args:
        group: the group of the configuration, for messages.
        settings: an instance of a dataclass.

    Raises:
        ConfigError: names the first field that is impossible.
    """
    hints = get_type_hints(type(settings), include_extras=True)
    for field in fields(settings):
        if _has_range(hints[field.name]):
            check_value(f"{group}.{field.name}", getattr(settings, field.name), hints[field.name])


def _has_range(annotation: Any) -> bool:
    """True for `Annotated[...]`, and for a union that contains it."""
    return get_origin(annotation) is Annotated or any(
        get_origin(part) is Annotated for part in get_args(annotation)
    )

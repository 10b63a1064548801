"""The kinds of value that a configuration holds, and what is said about one that does not fit.

Not here: which keys there are (experiment.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
    field_validator,
)
from pydantic_core import CoreSchema

from harness.sizes import parse_bytes

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=60)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Auto = Literal["auto"]


def _at_least_one(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("is empty; give at least one")
    return values


# pydantic's own min_length would also complain of a list whose only member is wrong.
AT_LEAST_ONE = AfterValidator(_at_least_one)


class _OrItsName:
    """In the JSON schema only: what is a mapping may also be given by its name."""

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core)]}


OR_ITS_NAME = _OrItsName()


class MistakesError(ValueError):
    """Several things wrong within one value: (key path inside it, message)."""

    def __init__(self, found: Iterable[tuple[str, str]]) -> None:
        self.found = tuple(found)
        super().__init__("; ".join(f"{key}: {message}" if key else message for key, message in self.found))


def _size(value: object) -> int | str:
    return "auto" if value == "auto" else parse_bytes(value)


def _count(value: object) -> int | str:
    if value == "auto":
        return "auto"
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"expected a whole number of at least 1, or auto, not {value!r}")
    return value


_SIZE_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "examples": ["14.6GiB", "auto"]}]}
_COUNT_SCHEMA = {"anyOf": [{"type": "integer", "minimum": 1}, {"const": "auto"}]}

# One validator per field instead of a union of types, so that a mistake is one message and not one per member.
Size = Annotated[int | Auto, PlainValidator(_size), WithJsonSchema(_SIZE_SCHEMA)]
CountOrAuto = Annotated[int | Auto, PlainValidator(_count), WithJsonSchema(_COUNT_SCHEMA)]


class Section(BaseModel):
    """A mapping whose keys are all known. YAML's yes and no are never taken for numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError(f"expected a number or text, not {value!r} (YAML reads a bare yes, no, on, off as one)")
        return value

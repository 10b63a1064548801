"""Strict reading of one JSON object: a wrong or missing key is an error that names the file and the key.

Not a validator of configurations (those come from people and deserve suggestions): these files were written by the
harness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeVar

from results.errors import ResultsError

Choice = TypeVar("Choice", bound=StrEnum)
Default = TypeVar("Default")


class _Required(Enum):
    """Stands for "no default": None is a default that a caller may want."""

    KEY = "required"


@dataclass(frozen=True, slots=True)
class Fields:
    """The keys of one JSON object. Every method takes the key and, where the key may be absent, a default.

    An explicit null counts as absent.
    """

    source: str
    data: Mapping[str, object]

    @classmethod
    def of(cls, data: object, source: str) -> Fields:
        if not isinstance(data, Mapping):
            raise ResultsError(f"{source}: expected a JSON object, got {_kind(data)}")
        return cls(source, data)

    def check_version(self, newest: int) -> None:
        version = self.integer("schema_version")
        if version > newest:
            raise self._error(
                "schema_version", f"{version} is newer than this harness reads ({newest}): upgrade the harness"
            )
        if version < 1:
            raise self._error("schema_version", f"{version} is not a version")

    def anything(self, key: str) -> object:
        return self.data.get(key)

    def text(self, key: str, default: Default | _Required = _Required.KEY) -> str | Default:
        return self._typed(key, str, "text", default)

    def flag(self, key: str, default: Default | _Required = _Required.KEY) -> bool | Default:
        return self._typed(key, bool, "true or false", default)

    def integer(self, key: str) -> int:
        value = self._typed(key, int, "a whole number", _Required.KEY)
        if isinstance(value, bool):
            raise self._error(key, "expected a whole number, got true or false")
        return value

    def number(self, key: str) -> float:
        if self.data.get(key) is None:
            raise self._error(key, "missing")
        return self._float(key, self.data[key])

    def choice(self, key: str, kind: type[Choice]) -> Choice:
        value = self.text(key)
        known = {member.value: member for member in kind}
        if value not in known:
            raise self._error(key, f"{value!r} is none of {', '.join(known)}")
        return known[value]

    def mapping(self, key: str, default: Mapping[str, object] | _Required = _Required.KEY) -> Mapping[str, object]:
        return self._typed(key, dict, "an object", default)

    def floats(self, key: str) -> dict[str, float]:
        return {name: self._float(f"{key}.{name}", value) for name, value in self.mapping(key).items()}

    def text_mapping(self, key: str, default: Mapping[str, object]) -> dict[str, str]:
        return {name: self._text(f"{key}.{name}", value) for name, value in self.mapping(key, default).items()}

    def items(self, key: str, default: list[object] | _Required = _Required.KEY) -> list[object]:
        return self._typed(key, list, "a list", default)

    def texts(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        values = self._typed(key, list, "a list", default)
        return tuple(self._text(f"{key}[{index}]", value) for index, value in enumerate(values))

    def _typed(self, key: str, kind: type[Default], wanted: str, default: object) -> Default:
        value = self.data.get(key)
        if value is None:
            if default is _Required.KEY:
                raise self._error(key, "missing")
            return default  # type: ignore[return-value]
        if not isinstance(value, kind):
            raise self._error(key, f"expected {wanted}, got {_kind(value)}")
        return value

    def _text(self, key: str, value: object) -> str:
        if not isinstance(value, str):
            raise self._error(key, f"expected text, got {_kind(value)}")
        return value

    def _float(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._error(key, f"expected a number, got {_kind(value)}")
        return float(value)

    def _error(self, key: str, problem: str) -> ResultsError:
        return ResultsError(f"{self.source}: {key}: {problem}")


def _kind(value: object) -> str:
    """The JSON name of a value's type, for messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)

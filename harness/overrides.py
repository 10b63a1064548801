"""Single values that win over the file: HARNESS_SET_a__b=value in the environment, then --set a.b=value.

Values are read as YAML. A step into a list is its index; the index after the last appends.
An engine given by name alone becomes {kind: name} when one of its options is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from harness.document import Document, KeyPath, dotted
from harness.errors import ConfigError

ENVIRONMENT_PREFIX = "HARNESS_SET_"


@dataclass(frozen=True, slots=True)
class Override:
    keys: tuple[str, ...]
    text: str
    origin: str  # what to call it in a message


def from_environment(environment: Mapping[str, str]) -> Iterator[Override]:
    for name in sorted(environment):
        if name.startswith(ENVIRONMENT_PREFIX) and name != ENVIRONMENT_PREFIX:
            yield Override(tuple(name.removeprefix(ENVIRONMENT_PREFIX).split("__")), environment[name], name)


def from_arguments(sets: Iterable[str]) -> Iterator[Override]:
    for argument in sets:
        keys, equals, text = argument.partition("=")
        if not equals or not all(keys.split(".")):
            raise ConfigError(f"--set {argument}: expected KEY=VALUE, such as budget.max_batch=64")
        yield Override(tuple(keys.split(".")), text, "--set")


def apply_overrides(document: Document, overrides: Iterable[Override]) -> Document:
    """A new document; all overrides that do not fit are reported together."""
    values: dict[str, Any] = _copy(document.values)
    origins = dict(document.origins)
    problems: list[str] = []
    for override in overrides:
        try:
            path = _place(values, override)
        except ConfigError as error:
            problems.extend(error.problems)
            continue
        origins = {known: origin for known, origin in origins.items() if known[: len(path)] != path}
        origins[path] = override.origin
    if problems:
        raise ConfigError(problems)
    return Document(values, origins)


def _place(values: dict[str, Any], override: Override) -> KeyPath:
    """Set one value, making sections on the way; returns its path with list indices as numbers."""
    value = _parse(override)
    container: Any = values
    path: KeyPath = ()
    for key in override.keys[:-1]:
        slot = _slot(container, key, path, override)
        path = (*path, slot)
        inside = _get(container, slot)
        if isinstance(inside, str) and len(path) == 2 and path[0] == "engines":
            inside = {"kind": inside}
        inside = {} if inside is None else inside
        _put(container, slot, inside)
        container = inside
    slot = _slot(container, override.keys[-1], path, override)
    _put(container, slot, value)
    return (*path, slot)


def _slot(container: Any, key: str, path: KeyPath, override: Override) -> str | int:
    """The key or index under which the container holds what is meant."""
    if isinstance(container, dict):
        return key
    where = f"{override.origin}: {'.'.join(override.keys)}: {dotted(path)}"
    if not isinstance(container, list):
        raise ConfigError(f"{where} is a single value and has no key {key!r}")
    if not key.isdecimal() or int(key) > len(container):
        raise ConfigError(f"{where} is a list of {len(container)}; {key!r} is no index of it")
    return int(key)


def _get(container: Any, slot: str | int) -> Any:
    is_inside = slot in container if isinstance(container, dict) else slot != len(container)
    return container[slot] if is_inside else None


def _put(container: Any, slot: str | int, value: Any) -> None:
    if isinstance(container, list) and slot == len(container):
        container.append(value)
    else:
        container[slot] = value


def _parse(override: Override) -> Any:
    try:
        return yaml.safe_load(override.text)
    except (yaml.YAMLError, ValueError, RecursionError):
        keys = ".".join(override.keys)
        raise ConfigError(f"{override.origin}: {keys}: {override.text!r} is not a YAML value") from None


def _copy(value: Any) -> Any:
    """A deep copy of plain YAML values."""
    if isinstance(value, dict):
        return {key: _copy(inside) for key, inside in value.items()}
    return [_copy(inside) for inside in value] if isinstance(value, list) else value

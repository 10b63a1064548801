"""A configuration file as plain values, and the line on which each of them stands.

Only plain YAML is read: no tags, no aliases, no duplicate keys. What the values mean is experiment.py's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from harness.errors import ConfigError

KeyPath = tuple[str | int, ...]
PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map"))


@dataclass(frozen=True, slots=True)
class Document:
    values: dict[str, Any]
    origins: Mapping[KeyPath, str]  # where a value stands: "t4_llama2.yaml:7"


def read_document(path: Path) -> Document:
    """Values and lines of a YAML file; ConfigError with every mistake of its form."""
    return parse_document(_text(path), path.name)


def parse_document(text: str, name: str) -> Document:
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ConfigError(f"{name}: the file is empty; `harness list configs` names examples")
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(f"{name}: expected keys and values, such as name: and engines:, at the top")
        walk = _Walk(name)
        walk.node(root, ())
        if walk.problems:
            raise ConfigError(walk.problems)
        return Document(yaml.safe_load(text), walk.origins)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{line}: not valid YAML: {' '.join(str(error.problem).split())}") from None
    except (yaml.YAMLError, ValueError) as error:  # a number that is none, or too long to be one, is a ValueError
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{name}: nested too deeply") from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


@dataclass(slots=True)
class _Walk:
    """Visits every node of the file once, before anything is constructed from it."""

    name: str
    origins: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    def node(self, node: yaml.Node, path: KeyPath) -> None:
        where = f"{self.name}:{node.start_mark.line + 1}"
        self.origins.setdefault(path, where)
        if id(node) in self.seen:
            self.problems.append(f"{where}: {dotted(path)}: anchors and aliases are not supported; write the value out")
            return
        self.seen.add(id(node))
        if node.tag not in PLAIN_TAGS:
            self.problems.append(f"{where}: {dotted(path)}: {_tag_problem(node.tag)}")
            return
        for key, child in self._children(node, path):
            self.node(child, (*path, key))

    def _children(self, node: yaml.Node, path: KeyPath) -> Iterator[tuple[str | int, yaml.Node]]:
        if isinstance(node, yaml.SequenceNode):
            yield from enumerate(node.value)
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, child in node.value:
                where = f"{self.name}:{key.start_mark.line + 1}"
                if key.tag != "tag:yaml.org,2002:str":
                    self.problems.append(f"{where}: {dotted(path)}: key {key.value!r} is not text; put it in quotes")
                elif key.value in keys:
                    self.problems.append(f"{where}: {dotted((*path, key.value))}: this key is given twice")
                else:
                    keys.add(key.value)
                    self.origins[(*path, key.value)] = where
                    yield key.value, child


def dotted(path: KeyPath) -> str:
    return ".".join(str(part) for part in path) or "the file"


def _tag_problem(tag: str) -> str:
    if tag == "tag:yaml.org,2002:timestamp":
        return "a bare date is not text; put it in quotes"
    return f"the tag {tag.replace('tag:yaml.org,2002:', '!!')} is not allowed; only plain YAML values are read"

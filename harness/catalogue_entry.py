"""A machine as the YAML that it could have been read from: engines/hardware/catalogue.py the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from engines.hardware import ByShape, ByTokens, Hardware, Product, Source, load_hardware
from results.files import write_text

LIST_WIDTH = 100


def write_entry(path: Path, hardware: Hardware, heading: str) -> None:
    """Read again before anything counts on it: what cannot be loaded raises HardwareError here."""
    comment = "".join(f"# {line}\n" for line in heading.splitlines())
    text = yaml.safe_dump(entry_of(hardware), sort_keys=False, width=LIST_WIDTH, allow_unicode=True)
    write_text(path, comment + text)
    load_hardware(str(path))


def entry_of(hardware: Hardware) -> dict[str, Any]:
    return _Writing(hardware.sources).section(hardware, "")


@dataclass(frozen=True, slots=True)
class _Writing:
    sources: Mapping[str, Source]

    def section(self, part: object, path: str) -> dict[str, Any]:
        """Fields in the order of the dataclass; what no file said is left to its default."""
        assert is_dataclass(part)
        found = {}
        for field in fields(part):
            if field.name == "sources":
                continue
            written = self._value(getattr(part, field.name), f"{path}.{field.name}".lstrip("."))
            if written not in (None, {}):
                found[field.name] = written
        return found

    def _value(self, value: object, path: str) -> object:
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, ByTokens):
            return {**_lists(value), **self._source(path)}
        if isinstance(value, ByShape):
            return {"products": [_product(each) for each in value.products], **self._source(path)}
        if isinstance(value, Mapping):
            return {key: self._value(each, f"{path}.{key}") for key, each in value.items()}
        if is_dataclass(value):
            return self.section(value, path)
        return {"value": value, **self._source(path)} if path in self.sources else None

    def _source(self, path: str) -> dict[str, object]:
        source = self.sources[path]
        ends = {"low": source.low, "high": source.high}
        return {
            "source": source.text,
            "grade": source.grade.value,
            **{key: end for key, end in ends.items() if end is not None},
        }


def _product(product: Product) -> dict[str, Any]:
    return {"inputs": product.inputs, "outputs": product.outputs, **_lists(product.by_tokens)}


def _lists(table: ByTokens) -> dict[str, Any]:
    return {"tokens": list(table.tokens), "ratios": list(table.ratios)}

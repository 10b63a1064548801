"""What other distributions claim to bring: their entry points of the group "harness.engines", read from metadata alone.

Nothing is imported here. Metadata is written by anybody, so every claim stands by itself: what is wrong with one is a
sentence that goes with it, and takes no other away. Who loads an engine is registry.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from urllib.parse import unquote, urlsplit

PLUGIN_GROUP = "harness.engines"
ENTRY_POINTS = "entry_points.txt"
NAMELESS = "?"
LONGEST_LINE = 300

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TARGET = re.compile(r"([A-Za-z_][\w.]*)\s*:\s*([A-Za-z_][\w.]*)\s*(\[.*\])?")  # extras are history, and harmless


@dataclass(frozen=True, slots=True)
class Claim:
    """One entry point. `problem` is why it is no engine, as far as that shows without loading it."""

    kind: str
    target: str  # "module:Class"
    origin: str
    problem: str = ""


def claims(ours: Container[str]) -> list[Claim]:
    """Every claim by name; a name that is ours, or that two distributions want, is nobody's among them."""
    found = sorted((claim for each in distributions() for claim in _claims(each)), key=lambda claim: claim.kind)
    return [_contested(claim, found, ours) for claim in found]


def one_line(text: object) -> str:
    """Somebody else's words as one line that any terminal can show."""
    words = " ".join(str(text).split())
    shown = "".join(letter if letter.isprintable() else NAMELESS for letter in words)
    return shown if len(shown) <= LONGEST_LINE else f"{shown[:LONGEST_LINE]}..."


def raised(error: BaseException) -> str:
    """The same of an exception, which may not even be able to say what it is."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _claims(source: Distribution) -> Iterator[Claim]:
    try:
        text = source.read_text(ENTRY_POINTS) or ""
    except (OSError, ValueError) as error:
        problem = f"its {ENTRY_POINTS} cannot be read: {raised(error)}; reinstall it"
        yield Claim(NAMELESS, "", _origin(source), problem)
        return
    if PLUGIN_GROUP not in text or _is_shadowed(source):
        return
    origin = _origin(source)
    yield from (_claim(line, origin) for line in _lines_of_group(text))


def _lines_of_group(text: str) -> Iterator[str]:
    inside = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{PLUGIN_GROUP}]"
        elif inside and line and line[0] not in "#;":
            yield line


def _claim(line: str, origin: str) -> Claim:
    name, _, target = (part.strip() for part in line.partition("="))
    match = _TARGET.fullmatch(target)
    if not _NAME.fullmatch(name):
        problem = f'"{one_line(name)}" is no name for an engine: letters, digits and . _ - only'
    elif match is None:
        problem = f'its entry point "{one_line(line)}" is not of the form name = module:Class'
    else:
        return Claim(name, f"{match[1]}:{match[2]}", origin)
    return Claim(one_line(name) or NAMELESS, one_line(target), origin, f"{problem}; upgrade or remove it")


def _contested(claim: Claim, others: list[Claim], ours: Container[str]) -> Claim:
    if claim.problem:
        return claim
    if claim.kind in ours:
        return replace(claim, problem=f'"{claim.kind}" is the name of one of ours; its maker must choose another')
    rivals = [other.origin for other in others if other.kind == claim.kind and other is not claim]
    if rivals:
        problem = f"{' and '.join(rivals)} claims this name, too: uninstall all but one"
        return replace(claim, problem=problem)
    return claim


def _origin(source: Distribution) -> str:
    """Name and version, and of an editable install the folder that it runs from."""
    name, version = _field(source, "Name"), _field(source, "Version")
    known = f"{name or 'a distribution without a name'} {version}".rstrip()
    folder = _editable_folder(source)
    return f"{known} at {one_line(folder)}" if folder else known


def _field(source: Distribution, name: str) -> str:
    """METADATA may be missing or anything, and what that raises differs between versions of Python."""
    try:
        return one_line(source.metadata[name] or "")
    except Exception:
        return ""


def _editable_folder(source: Distribution) -> str:
    """As installers write it down (PEP 610)."""
    try:
        direct = json.loads(source.read_text("direct_url.json") or "{}")
        is_editable, url = direct["dir_info"]["editable"] is True, urlsplit(str(direct["url"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ""
    return unquote(url.path) if is_editable and url.scheme == "file" else ""


def _is_shadowed(source: Distribution) -> bool:
    """Another folder, earlier on the path, has a distribution of this name; imports would find that one."""
    name = _field(source, "Name")
    try:
        return bool(name) and distribution(name).locate_file("") != source.locate_file("")
    except PackageNotFoundError:  # its own folder goes by another name
        return False

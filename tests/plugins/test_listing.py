"""`harness list engines` and `harness doctor` among plugins that break in every way: a line each, and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engines.registry import BUILT_IN
from harness.engines_here import engines_here
from tests.e2e.commands import COMMAND
from tests.faults.conftest import is_running, wait_for
from tests.plugins.conftest import PATIENCE_S, Home
from tests.plugins.installed import POLICY, SERVED, install, install_engine

UNAVAILABLE = "    @staticmethod\n    def unavailable():\n        "
ADVICE = "; reinstall or remove dist-{kind} 1.0"

# What the module does, and the state that it must come to; "" is ok.
FINE = {
    "policy": POLICY,
    "served": SERVED,
    "prints": f"import os\nprint('hello')\nos.write(1, b'hello')\nos.write(2, b'hello')\n{POLICY}",
    "warns": f"import warnings\nwarnings.warn('old')\n{POLICY}",
    "lingers": f"import subprocess, threading, time\nsubprocess.Popen(['sleep', '600'])\n"
    f"threading.Thread(target=time.sleep, args=(600,)).start()\n{POLICY}",
    "at_exit": f"import atexit, time\natexit.register(time.sleep, 600)\n{POLICY}",
}
BROKEN = {
    "raises": ("1 / 0", r"cannot be loaded from module_of_raises:Engine: ZeroDivisionError: division by zero"),
    "exits": ("raise SystemExit(0)", r"cannot be loaded from module_of_exits:Engine: SystemExit: 0"),
    "interrupts": ("raise KeyboardInterrupt", r"cannot be loaded from module_of_interrupts:Engine: KeyboardInterrupt"),
    "vanishes": ("import os\nos._exit(0)", "the process that loaded it ended"),
    "dies": ("import os\nos._exit(7)", "exited with code 7"),
    "crashes": ("import ctypes\nctypes.string_at(0)", "crashed with SIGSEGV: Segmentation fault"),
    "kills": ("import os\nos.kill(os.getpid(), 9)", "killed by SIGKILL.*"),
}
SAYS_NO = {
    "needy": (POLICY + UNAVAILABLE + "return 'needs a dongle:\\nplug it in'", "needs a dongle: plug it in"),
    "upset": (
        SERVED.replace("    def open", UNAVAILABLE + "exit(3)\n\n    def open"),
        "its unavailable() raised SystemExit: 3; upgrade or remove it",
    ),
}


@pytest.fixture(scope="module")
def hostile(home: Home) -> Home:
    sources = FINE | {kind: source for kind, (source, _) in (BROKEN | SAYS_NO).items()}
    for kind, source in sources.items():
        install_engine(home.site, kind, source)
    install(home.site, "usurper", "gpu_only = usurper:Engine\nnonsense")
    install(home.site, "binary", b"[harness.engines]\nx = \xff:Engine\n")
    install(home.site, "one", "contested = one:Engine")
    install(home.site, "two", "contested = two:Engine")
    return home


@pytest.fixture(scope="module")
def listed(hostile: Home) -> list[dict[str, str]]:
    answer = hostile("list", "engines", "--json")
    assert (answer.code, answer.err) == (0, "")
    rows: list[dict[str, str]] = json.loads(answer.out)
    return rows


def row(listed: list[dict[str, str]], kind: str) -> dict[str, str]:
    (found,) = (entry for entry in listed if entry["engine"] == kind)
    return found


def test_ours_come_first_and_are_as_ever(listed: list[dict[str, str]]) -> None:
    ours = listed[: len(BUILT_IN)]
    assert [entry["engine"] for entry in ours] == list(BUILT_IN)
    assert {entry["from"] for entry in ours} == {"ours"}
    assert row(ours, "gpu_only") == {
        "engine": "gpu_only",
        "from": "ours",
        "kind": "policy",
        "state": "ok",
        "what it does": BUILT_IN["gpu_only"].summary,
    }


@pytest.mark.parametrize("kind", FINE)
def test_what_works_is_listed_with_its_origin(listed: list[dict[str, str]], kind: str) -> None:
    """Also what prints, warns, or would never let its process end."""
    found = row(listed, kind)
    assert (found["from"], found["state"]) == (f"dist-{kind} 1.0", "ok")
    assert found["kind"] == ("engine of its own" if kind == "served" else "policy")
    assert found["what it does"]


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_loaded_is_one_line(listed: list[dict[str, str]], kind: str) -> None:
    found = row(listed, kind)
    assert (found["from"], found["kind"], found["what it does"]) == (f"dist-{kind} 1.0", "", "")
    assert re.fullmatch(BROKEN[kind][1] + re.escape(ADVICE.format(kind=kind)), found["state"]), found["state"]


@pytest.mark.parametrize("kind", SAYS_NO)
def test_what_cannot_be_had_says_why(listed: list[dict[str, str]], kind: str) -> None:
    found = row(listed, kind)
    assert (found["state"], found["kind"] != "") == (SAYS_NO[kind][1], True)


def test_claims_that_cannot_be_granted(listed: list[dict[str, str]]) -> None:
    states = {(entry["engine"], entry["from"]): entry["state"] for entry in listed}
    assert "is the name of one of ours" in states["gpu_only", "usurper 1.0"]
    assert states["contested", "one 1.0"] == "two 1.0 claims this name, too: uninstall all but one"
    assert states["contested", "two 1.0"] == "one 1.0 claims this name, too: uninstall all but one"
    assert "is not of the form name = module:Class" in states["nonsense", "usurper 1.0"]
    assert states["?", "binary 1.0"].startswith("its entry_points.txt cannot be read: UnicodeDecodeError")


def test_the_table_has_them_all(hostile: Home, listed: list[dict[str, str]]) -> None:
    answer = hostile("list", "engines")
    assert (answer.code, answer.err) == (0, "")
    starts = [line.split()[0] for line in answer.out.splitlines()[1:] if line[:1].strip()]
    assert starts == [entry["engine"] for entry in listed]


def test_the_doctor_finds_the_same(hostile: Home, listed: list[dict[str, str]]) -> None:
    answer = hostile("doctor", "--json")
    assert answer.err == ""
    findings: list[dict[str, Any]] = json.loads(answer.out)
    states = {entry["check"]: entry["state"] for entry in findings}
    assert states["torch"] == "ok", "it reads everybody's entry points when it is imported, unless told not to"
    found = [entry for entry in findings if entry["check"].startswith("engine ")]
    assert [entry["check"] for entry in found] == [f"engine {entry['engine']}" for entry in listed]
    for finding, entry in zip(found, listed, strict=True):
        assert finding["state"] == ("ok" if entry["state"] == "ok" else "warning")
        assert entry["from"] in finding["detail"]
        assert entry["state"] == "ok" or entry["state"] in finding["detail"]


def test_other_commands_do_not_even_look_at_them(hostile: Home) -> None:
    config = hostile.config("gpu_only")
    valid = hostile("validate", "--config", config)
    assert (valid.err, valid.code) == ("", 0)
    assert hostile("plan", "--config", config).code == 0
    assert hostile("list", "workloads").code == 0
    run = hostile("run", "--config", config, "--quiet")
    assert (run.code, run.out, run.err) == (0, "", "")


def test_one_that_never_finishes_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_engine(tmp_path, "endless", "import time\ntime.sleep(3600)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (found,) = (engine for engine in engines_here(load_limit_s=0.5) if engine.kind == "endless")
    assert found.state == "not loaded within 0.5 s; reinstall or remove dist-endless 1.0"


def test_ctrl_c_ends_the_list_and_what_it_was_loading(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    source = f"import os, pathlib, time\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(3600)"
    install_engine(tmp_path, "endless", source)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    listing = subprocess.Popen([COMMAND, "list", "engines"], env=environment, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: mark.is_file() and bool(mark.read_text()), "the engine being loaded")
    listing.send_signal(signal.SIGINT)
    out, _ = listing.communicate(timeout=PATIENCE_S)
    assert (listing.returncode, out) == (130, "")
    assert not is_running(int(mark.read_text()))

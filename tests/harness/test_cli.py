"""The commands as a user meets them: what they print, their exit codes, and that they answer at once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness import environment
from harness.catalogue import Topic
from harness.doctor import Finding, examine, is_fit
from harness.errors import UnfitEnvironmentError
from tests.harness.conftest import REPOSITORY, Call, Write


@pytest.mark.parametrize("topic", list(Topic))
def test_list(call: Call, topic: Topic) -> None:
    as_table = call("list", topic)
    as_json = call("list", topic, "--json")
    assert as_table.code == as_json.code == 0
    rows = json.loads(as_json.out)
    assert len(rows) >= 1
    assert all(str(next(iter(row.values()))) in as_table.out for row in rows)


def test_list_of_nothing_known(call: Call) -> None:
    assert call("list", "dragons").code == 2


def test_quick_commands_import_nothing_heavy() -> None:
    heavy = ["torch", "pandas", "pyarrow", "scipy", "transformers"]
    program = (
        "import sys; from harness.cli import main\n"
        "try: main(['list', 'engines'])\n"
        "except SystemExit: pass\n"
        f"sys.exit(' '.join(name for name in {heavy} if name in sys.modules) or None)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "gpu_only" in ended.stdout


def test_a_simulation_plan_never_imports_torch(write: Write) -> None:
    program = (
        "import sys; from harness.cli import main\n"
        f"try: main(['validate', '--config', {str(write())!r}])\n"
        "except SystemExit as ended: assert not ended.code\n"
        "sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr + ended.stdout


def test_version_help_and_usage(call: Call) -> None:
    assert call("--version").code == 0
    assert "validate" in call("--help").out
    assert call("run").code == 2
    assert call("fly").code == 2


def test_validate(call: Call, write: Write) -> None:
    answer = call("validate", "--config", write())
    assert (answer.code, answer.err) == (0, "")
    assert "1 cells on sim (simulated" in answer.out
    schema = json.loads(call("validate", "--schema").out)
    assert schema["title"] == "Experiment"
    assert call("validate").code == 2


def test_plan(call: Call, write: Write) -> None:
    config = write(measure={"repeats": 2})
    answer = call("plan", "--config", config, "--json")
    assert answer.code == 0
    planned = json.loads(answer.out)
    assert planned["backend"] == "sim"
    assert [cell["repeat"] for cell in planned["cells"]] == [0, 1]
    assert planned["cells"][0]["requests"] == 2
    assert planned["cells"][0]["output_tokens"] == 8
    assert planned["cells"][0]["about_s"] > 0
    table = call("plan", "--config", config).out
    assert all(cell["cell_id"] in table for cell in planned["cells"])
    assert not (config.parent / "runs").exists()


def test_a_run_from_end_to_end(call: Call, write: Write, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    answer = call("run", "--config", write(), "--out", out)
    assert answer.code == 0, answer.err
    (run_dir,) = out.iterdir()
    assert f"report:  {run_dir / 'report.html'}" in answer.out
    assert (run_dir / "report.html").is_file()
    assert "simulated" in answer.out
    assert answer.err.startswith("small: 1 cells on sim (simulated: asked for)\n")
    assert "[1/1] gpu_only on batch, repeat 0: ok" in answer.err
    assert "\x1b" not in answer.out + answer.err
    again = call("run", "--config", write(), "--out", out, "--resume", "--json")
    assert again.code == 0
    assert json.loads(again.out)["run_dir"] == str(run_dir)
    assert json.loads(again.out)["cells"][0]["status"] == "ok"
    assert "kept from before" in again.err
    quiet = call("run", "--config", write(), "--out", out, "--resume", "--quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    (run_dir / "report.html").unlink()
    assert call("report", run_dir).out.strip() == str(run_dir / "report.html")


def test_a_failed_cell_makes_the_run_partial(call: Call, write: Write, tmp_path: Path) -> None:
    answer = call("run", "--config", write(measure={"time_limit_s": 0.01}), "--out", tmp_path / "runs", "--quiet")
    assert answer.code == 4
    assert "timed out" in answer.err


def test_report_of_no_run(call: Call, tmp_path: Path) -> None:
    answer = call("report", tmp_path)
    assert answer.code == 2
    assert len(answer.errors) == 1


def test_an_output_folder_that_cannot_be(call: Call, write: Write, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = call("run", "--config", write(), "--out", tmp_path / "file" / "runs")
    assert answer.code == 2
    assert "--out" in answer.errors[0]


def test_what_no_configuration_can_bring_is_exit_code_3(
    call: Call, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.checks.NATIVE_EXTENSION", "engines.apex._not_there")
    answer = call("run", "--config", write(backend="cpu", dtype="float32"), "--out", tmp_path / "runs")
    assert answer.code == 3
    assert "make install" in answer.err
    assert not (tmp_path / "runs").exists()


def test_a_fault_of_ours_shows_where(call: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr("harness.plan.expand", broken)
    answer = call("validate", "--config", write())
    assert answer.code == 70
    assert "Traceback" in answer.err
    assert "KeyError" in answer.err


def test_debug_shows_the_traceback_of_a_mistake(write: Write) -> None:
    from harness.cli import main
    from harness.errors import ConfigError

    with pytest.raises(ConfigError):
        main(["--debug", "validate", "--config", str(write(model="nothing"))])


def test_an_interrupt_outside_a_run(call: Call, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.plan.expand", interrupted)
    assert call("validate", "--config", write()).code == 130


def test_doctor(call: Call) -> None:
    answer = call("doctor", "--json")
    findings = json.loads(answer.out)
    assert {"python", "cpu", "memory", "gpu", "backend sim", "backend cpu", "backend cuda"} <= {
        finding["check"] for finding in findings
    }
    assert answer.code == (0 if is_fit([Finding(**finding) for finding in findings]) else 3)
    assert "backend sim" in call("doctor").out


def test_doctor_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "engines.apex._cpu", None)
    findings = {finding.check: finding for finding in examine()}
    assert findings["native extension"].state == "missing"
    assert findings["backend cpu"].state == "missing"
    assert findings["backend sim"].state == "ok"
    assert not is_fit(list(findings.values()))


def test_machine_facts_never_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = environment.machine_facts()
    assert facts["cores"]
    json.dumps([facts, environment.versions(), environment.git_state()])

    def gone(*_: object, **__: object) -> None:
        raise OSError("gone")

    monkeypatch.setattr("pathlib.Path.read_text", gone)
    monkeypatch.setattr("subprocess.run", gone)
    monkeypatch.setattr("os.sysconf", gone)
    assert environment.machine_facts()["memory_bytes"] == "unknown"
    assert environment.git_state() == (None, None)


def test_user_mistakes_are_told_from_faults() -> None:
    from harness.errors import ConfigError, is_user_mistake
    from workloads import WorkloadError

    assert is_user_mistake(ConfigError("x"))
    assert is_user_mistake(WorkloadError("x"))
    assert not is_user_mistake(ValueError("x"))
    assert not is_user_mistake(UnfitEnvironmentError("x"))

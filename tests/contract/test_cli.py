"""`pirl NAME`: one line and status 2 for what it does not know; `pirl doctor`: a line per check, a fix where needed."""

from __future__ import annotations

import py_compile
import socket
import sys
from pathlib import Path

import pytest
from patience import completed

from pirl_contract.commands import cli, doctor
from pirl_contract.commands.doctor import Finding


def test_an_unknown_command_is_one_line_and_status_2() -> None:
    done = completed(
        [sys.executable, "-m", "pirl_contract.commands.cli", "srve", "x"],
        limit_s=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "'srve'" in line
    assert "serve" in line


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("serve", "doctor", "demo", "sft", "evaluate"))


class Entry:
    """An entry point whose command does what it is told."""

    name = "work"

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome

    def load(self) -> object:
        def command(arguments: list[str]) -> object:
            if isinstance(self.outcome, BaseException):
                raise self.outcome
            return self.outcome

        return command


@pytest.mark.parametrize(
    ("outcome", "status", "words"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (ValueError("port 1 is taken: take another"), 2, "pirl work: port 1 is taken: take another"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), 2, "pip install"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_a_command_ends_in_a_status_and_at_most_one_line(
    outcome: object, status: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: [Entry(outcome)])
    assert cli.main(["work"]) == status
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == (1 if words else 0)


def fails() -> Finding:
    return Finding("engine", "is on fire", "pour water on it")


def is_missing() -> Finding:
    return Finding("radio", "is not there", "buy one", optional=True)


@pytest.mark.parametrize(("checks", "status"), [((fails, is_missing), 1), ((is_missing,), 0), ((), 0)])
def test_doctor_says_what_is_wrong_and_how_to_mend_it(
    checks: tuple[object, ...], status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", (doctor.check_numpy, *checks))
    assert doctor.main([]) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok   numpy")
    if fails in checks:
        assert lines[1].split() == ["BAD", "engine", "is", "on", "fire"]
        assert lines[2].split() == ["->", "pour", "water", "on", "it"]
    assert sum(line.startswith("note") for line in lines) == (is_missing in checks)


def test_doctor_on_this_machine_has_a_line_per_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The child processes' answers are given, so that neither GPU nor ROS is needed; every other check is real."""
    monkeypatch.setattr(doctor, "_python", lambda code: None)
    doctor.main([])
    lines = [line for line in capsys.readouterr().out.splitlines() if "->" not in line]
    found = [line[5:].split()[0] for line in lines]
    assert found == ["python", "numpy", "torch", "gpu", "vulkan", "ros", "disk", "memory", "ports"]


def test_doctor_asks_in_a_child_that_may_crash() -> None:
    assert doctor._python("print('well')") == "well"
    assert doctor._python("raise SystemExit(3)") is None
    assert doctor._python("import os; os.abort()") is None


def test_doctor_names_a_taken_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(doctor, "PORTS", {"gRPC": taken.getsockname()[1]})
        finding = doctor.check_ports()
        assert "taken: gRPC" in finding.state
        assert "--grpc-port" in finding.fix
    assert "free" in doctor.check_ports().state


@pytest.mark.parametrize("there", [True, False])
def test_doctor_says_where_ros2_launch_comes_from(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(doctor, "_python", lambda code: "1")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/opt/ros2" if there and name == "ros2" else None)
    found = doctor.check_ros()
    assert found.optional is not there
    assert ("ros2 launch needs an apt ROS 2" in found.fix) is not there


def test_doctor_says_when_each_process_compiles_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "thing").mkdir()
    source = tmp_path / "thing" / "__init__.py"
    source.write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not doctor._compiled("thing")
    py_compile.compile(str(source))
    assert doctor._compiled("thing")
    assert doctor._compiled("no_such_thing"), "what is missing is said by its own check"
    for keeps, compiled, noted in ((False, False, False), (True, True, False), (True, False, True)):
        monkeypatch.setattr(sys, "dont_write_bytecode", keeps)
        monkeypatch.setattr(doctor, "_compiled", lambda package, compiled=compiled: compiled)
        finding = doctor.check_python()
        assert (f"{sys.prefix}/lib" in finding.fix) is noted
        assert finding.optional or not noted

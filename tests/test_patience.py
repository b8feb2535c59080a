"""Limits that grow with the load: a wait ends when it is over, and is given up later where other work slows it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import patience
import pytest
from patience import Patience, completed, output_of, patient, slowdown, until

FIXED = re.compile(
    r"\btimeout=\d\d"  # of a subprocess, a request, a call
    r"|\.(?:result|wait|join|communicate)\((?:timeout=)?\d\d"
    r"|\b(?:deadline|end|until|give_up)\w* = time\.monotonic\(\) \+"
)
"""ten seconds and more: less is what a test lets pass on purpose"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the kernel says of two cores: nothing to do, unless a test writes something else."""
    path = tmp_path / "loadavg"
    monkeypatch.setattr(patience, "LOAD", path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    path.write_text("0.10 0.20 0.30 1/99 4711\n")
    return path


@pytest.mark.parametrize(
    ("line", "expected"),
    [("0.10 9 9 1/99 1", 1.0), ("2.00 9 9 1/99 1", 1.0), ("5.00 9 9 1/99 1", 2.5), ("0.10 9 9 8/99 1", 4.0)],
)
def test_a_task_takes_as_much_longer_as_threads_share_a_core(load: Path, line: str, expected: float) -> None:
    load.write_text(line)
    assert slowdown() == expected
    assert patient(10.0) == 10.0 * expected


def test_a_limit_grows_while_it_runs_and_does_not_shrink(load: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    running = Patience(10.0)
    now[0] = 109.0
    assert running.left_s == pytest.approx(1.0)
    load.write_text("4.00 9 9 1/99 1")
    assert running.left_s == pytest.approx(11.0)
    load.write_text("0.00 9 9 1/99 1")
    assert running.left_s == pytest.approx(11.0), "it was slow until now"
    now[0] = 121.0
    assert running.left_s < 0


def test_a_wait_ends_with_its_condition_or_says_what_did_not_come() -> None:
    answers = iter([False, False, True])
    until(lambda: next(answers), limit_s=5.0)
    with pytest.raises(AssertionError, match="waited in vain: the robot"):
        until(lambda: False, "the robot", limit_s=0.0)
    with pytest.raises(AssertionError, match="waited in vain: 3 of 4"):
        until(lambda: False, lambda: "3 of 4", limit_s=0.0)


def test_a_command_is_run_to_its_end_and_its_words_are_kept() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(int(sys.argv[1]))"
    done = completed([sys.executable, "-c", code, "3"], limit_s=60)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    with pytest.raises(AssertionError, match="ended with status 3: err"):
        completed([sys.executable, "-c", code, "3"], limit_s=60, check=True)


def test_output_that_comes_between_two_looks_at_the_load_is_not_lost(
    load: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "LOOK_EVERY_S", 0.01)
    code = "import time\nfor i in range(20): print(i, flush=True); time.sleep(0.01)"
    assert completed([sys.executable, "-c", code], limit_s=60).stdout.split() == [str(i) for i in range(20)]


def test_a_command_that_hangs_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.PIPE) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            output_of(process, 0.0)
        assert process.poll() is None, "what to do with it is the caller's business"
        process.kill()
    with pytest.raises(subprocess.TimeoutExpired):
        completed([sys.executable, "-c", "import time; time.sleep(600)"], limit_s=0.0)


HANGS = """
import time
import patience, pytest
from pathlib import Path

@pytest.mark.timeout(0.2)
def test_one(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "LOAD", tmp_path / "loadavg")
    patience.LOAD.write_text("{load} 0 0 1/9 1")
    time.sleep(1.0)
"""


@pytest.mark.parametrize(("load", "failed"), [("1e6", False), ("0", True)])
def test_the_last_resort_waits_longer_under_load(tmp_path: Path, load: str, failed: bool) -> None:
    """pytest's own limit, with the hook of our conftest."""
    (tmp_path / "conftest.py").write_text((Path(__file__).parent / "conftest.py").read_text())
    (tmp_path / "patience.py").write_text(Path(patience.__file__).read_text())
    (tmp_path / "test_hangs.py").write_text(HANGS.format(load=load))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = completed(command, limit_s=60, cwd=tmp_path)
    assert done.returncode == int(failed), done.stdout
    assert ("Timeout" in done.stdout) is failed


def fixed_limits(source: str) -> list[str]:
    """Lines with a limit that is the same however busy the machine is."""
    return [line.strip() for line in source.splitlines() if FIXED.search(line)]


def test_no_test_has_a_limit_that_does_not_grow() -> None:
    """The remedy: `patient`, `until`, `completed` or `output_of`."""
    folder = Path(__file__).parent
    sources = [path for path in folder.rglob("*.py") if path.name != Path(__file__).name]
    assert len(sources) > 100
    found = {str(path.relative_to(folder)): fixed_limits(path.read_text()) for path in sources}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    "line",
    [
        "subprocess.run(command, text=True, timeout=60, check=False)",
        "httpx.Client(base_url=url, timeout=30)",
        "assert pending.result(20)",
        "process.communicate(timeout=20)",
        "deadline = time.monotonic() + LIMIT_S",
    ],
)
def test_a_fixed_limit_is_noticed(line: str) -> None:
    assert fixed_limits(f"import time\n    {line}\n") == [line]
    assert fixed_limits("stub.Infer(request, timeout=0.2)\nreply.result(patient(30))\nbegan = time.monotonic()") == []

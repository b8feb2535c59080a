"""Nothing outlives who started it: real processes, killed with SIGKILL, their descendants looked up in /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from patience import patient
from process_tree import alive, left_after, marked, tree, until

from pirl_server.process_reaper import END, reaped

FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, start_new_session=True)
if os.fork() == 0:  # a daemon: two forks, a session of its own, the one between is gone
    os.setsid()
    if os.fork() == 0:
        os.execv(sys.executable, sleeper)
    os._exit(0)
time.sleep(600)
"""
"""a process deaf to SIGTERM, a child, one that has left the session, and one whose parent is gone"""
PARENT = """
import subprocess, sys, time
from pirl_server.process_reaper import reaped
command = [sys.executable, "-c", sys.argv[1]]
subprocess.Popen(reaped(command) if sys.argv[2] == "reaped" else command, start_new_session=True)
time.sleep(600)
"""


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def family(parent: int, size: int) -> set[tuple[int, int]]:
    until(lambda: len(tree(parent)) >= size)
    return tree(parent)


@pytest.mark.parametrize("how", ["reaped", "bare"])
def test_a_killed_parent_leaves_nothing_behind(how: str) -> None:
    """Negative control: without a reaper all of it lives on."""
    mark = ("PIRL_TEST_FAMILY", uuid.uuid4().hex)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, FAMILY, how], env=os.environ | dict([mark]))
    try:
        started = family(parent.pid, 5 if how == "reaped" else 3)
    finally:
        parent.kill()
        parent.wait()
    if how == "reaped":
        assert left_after(started) == set()
        return
    until(lambda: len(marked(*mark)) == 4)  # the daemon, too, which is in no tree
    time.sleep(0.5)
    assert alive(started) == started
    left = marked(*mark)
    for pid, _ in left:
        os.kill(pid, signal.SIGKILL)
    assert left_after(left) == set()


@pytest.mark.parametrize("what", ["the command", "END"])
def test_when_the_command_is_killed_or_is_to_end_all_goes(what: str) -> None:
    reaper = subprocess.Popen(reaped([sys.executable, "-c", FAMILY]))
    started = family(reaper.pid, 4)
    commands = {pid for pid, _ in started if b"time.sleep(600)" in cmdline(pid) and b"setsid" in cmdline(pid)}
    if what == "END":
        reaper.send_signal(END)
    else:
        os.kill(commands.pop(), signal.SIGKILL)
    assert reaper.wait(patient(60)) == -signal.SIGKILL
    assert alive(started) == set(), "all are gone when the reaper is"


def test_the_command_goes_with_a_killed_reaper() -> None:
    reaper = subprocess.Popen(reaped([sys.executable, "-c", "import time; time.sleep(600)"]))
    started = family(reaper.pid, 1)
    reaper.kill()
    reaper.wait()
    assert left_after(started) == set()


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -9 $$", -9), ("kill -TERM $$", -15), ("true", 0)])
def test_the_end_of_the_command_is_the_reapers(script: str, status: int) -> None:
    assert subprocess.run(reaped(["sh", "-c", script]), check=False).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_and_the_command_decides(number: int, tmp_path: Path) -> None:
    script = (
        f"trap 'echo caught > {tmp_path}/caught; exit 7' TERM INT; touch {tmp_path}/up; while :; do sleep 0.05; done"
    )
    reaper = subprocess.Popen(reaped(["sh", "-c", script]))
    until((tmp_path / "up").exists)
    reaper.send_signal(number)
    assert reaper.wait(patient(60)) == 7
    assert (tmp_path / "caught").exists()


def test_a_parent_that_is_gone_already_starts_nothing(tmp_path: Path) -> None:
    words = reaped(["touch", str(tmp_path / "ran")])
    assert words.count(str(os.getpid())) == 1
    stranger = [str(2**22 + 1) if word == str(os.getpid()) else word for word in words]
    assert subprocess.run(stranger, check=False).returncode == 1
    assert not (tmp_path / "ran").exists()
    assert subprocess.run(words, check=False).returncode == 0, "negative control"
    assert (tmp_path / "ran").exists()


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = subprocess.run(reaped(["/no/such/program"]), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (127, "'/no/such/program' can't be run: No such file or directory\n")

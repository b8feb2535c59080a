"""The demo's processes and what they started are gone when its context is left, however they behave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from patience import until

from pirl_server.demo import processes
from pirl_server.demo.processes import Processes
from pirl_server.jobs.process import process_start

DEAF = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 1:
    subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_the_child_of_a_killed_child_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a session of its own and deaf to SIGTERM, like a job whose server was too slow to end it."""
    monkeypatch.setattr(processes, "GRACE_S", 0.2)
    with Processes(tmp_path, {}) as others:
        stranger = others.start("stranger", [sys.executable, "-c", "import time; time.sleep(600)"])
        with Processes(tmp_path, {}) as inner:
            inner.start("deaf", [sys.executable, "-c", DEAF, DEAF])
            while len(lines := inner.log("deaf").read_text().splitlines()) < 2:
                time.sleep(0.01)
            assert all(process_start(int(pid)) is not None for pid in lines)
        assert all(process_start(int(pid)) is None for pid in lines)
        assert stranger.poll() is None, "another run's processes are nobody's business"


KILLED = """
import sys, time
from pathlib import Path
from pirl_server.demo.processes import Processes
with Processes(Path(sys.argv[1]), {}) as running:
    running.start("deaf", [sys.executable, "-c", sys.argv[2], sys.argv[2]])
    time.sleep(600)
"""


def test_what_a_killed_demo_started_goes_with_it(tmp_path: Path) -> None:
    """Its context is never left: the kernel has to say it."""
    log = tmp_path / "deaf.log"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), DEAF]) as demo:
        while not log.exists() or len(log.read_text().splitlines()) < 2:
            time.sleep(0.01)
        pids = [int(line) for line in log.read_text().splitlines()]
        assert all(process_start(pid) is not None for pid in pids)
        demo.kill()
    until(lambda: [process_start(pid) for pid in pids] == [None, None], "its children live on", limit_s=5.0)


def test_an_interrupt_while_a_process_starts_leaves_it_not_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between the start and the moment at which anything knows of it."""
    start, started = subprocess.Popen, []

    def interrupted(*command: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*command, **options))
        signal.raise_signal(signal.SIGINT)
        return started[0]

    monkeypatch.setattr(processes.subprocess, "Popen", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Processes(tmp_path, {}) as running:
        running.start("sleeper", [sys.executable, "-c", "import time; time.sleep(600)"])
    assert process_start(started[0].pid) is None
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_process_that_ended_early_is_named_with_its_last_line(tmp_path: Path) -> None:
    with Processes(tmp_path, {}) as running:
        running.start("quitter", [sys.executable, "-c", "print('no port'); raise SystemExit(3)"]).wait()
        with pytest.raises(RuntimeError, match="quitter ended with status 3: no port"):
            running.check()

"""Skips are part of the result: they are listed with their reasons at the end of every run."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_timeout
from hypothesis import settings

sys.path.append(str(Path(__file__).parent))  # patience.py

from patience import Patience

# Two cores are shared with simulators and servers that the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

# A shell starts a command in the background with Ctrl-C ignored, and its children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test watches the clock, and the same sources give the same result; --hypothesis-profile=default tries new examples.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests begin first: none of them runs alone at the end beside an idle worker."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool:
    """The last resort against a test that hangs also waits longer on a busy machine."""
    pytest_timeout.pytest_timeout_set_timer(item, settings)
    give_up, patience = signal.getsignal(signal.SIGALRM), Patience(settings.timeout)

    def look_again(number: int, frame: Any) -> None:
        if (left_s := patience.left_s) > 0:
            signal.setitimer(signal.ITIMER_REAL, left_s)
        elif callable(give_up):
            give_up(number, frame)

    if callable(give_up):
        signal.signal(signal.SIGALRM, look_again)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.section("skipped, and why")
    if not skipped:
        terminalreporter.write_line("nothing was skipped")
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.write_line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")

"""Skips are part of the result: they are listed with their reasons at the end of every run."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# Two cores are shared with simulators and servers that the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "1")

# No test watches the clock, and the same sources give the same result; --hypothesis-profile=default tries new examples.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    terminalreporter.section("skipped, and why")
    if not skipped:
        terminalreporter.write_line("nothing was skipped")
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.write_line(f"{report.nodeid}: {reason.removeprefix('Skipped: ')}")

"""The demo's progress: in a log each line is news, on a terminal the one line is always of now."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pirl_server.demo import terminal
from pirl_server.demo.terminal import PLAIN_EVERY_S, Bar


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_log_gets_a_line_when_something_changed(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    bar = Bar("robot")
    for second in range(200):
        bar.show(second // 100, 2, f"{second // 100} episodes")
        clock[0] += 1.0
    bar.show(2, 2, "2 episodes")
    bar.show(2, 2, "2 episodes")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["0 episodes", "1 episodes", "2 episodes"]


def test_news_come_no_more_often_than_that_and_the_end_at_once(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    bar = Bar("fine-tune")
    for second in range(61):
        bar.show(second, 60, "steps")
        clock[0] += 1.0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 60 // int(PLAIN_EVERY_S + 1) + 1
    assert "100 %" in lines[-1]


def test_on_a_terminal_time_goes_by(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    bar = Bar("robot")
    for _ in range(3):
        bar.show(0, 2, "nothing yet")
        clock[0] += 1.0
    shown = capsys.readouterr().out.split("\r")[1:]
    assert ["   0 s" in shown[0], "   1 s" in shown[1], "   2 s" in shown[2]] == [True] * 3

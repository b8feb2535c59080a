"""Lines that repeat are counted, not written; others are written."""

from __future__ import annotations

import logging

from pirl_server.telemetry.repeat_filter import Repeats


def record(level: int, text: str, *values: object, **about: str) -> logging.LogRecord:
    made = logging.LogRecord("test", level, __file__, 1, text, values, None)
    if about:
        made.about = about
    return made


def test_a_flood_is_ten_lines_and_then_one_with_a_count() -> None:
    now = 0.0
    repeats = Repeats(lambda: now)
    passed = [repeats.filter(record(logging.ERROR, "no %d", number)) for number in range(1000)]
    assert passed == [True] * 10 + [False] * 990
    assert repeats.filter(record(logging.ERROR, "another kind"))
    now = 10.0
    line = record(logging.ERROR, "no %d", 1000, rpc="")
    assert repeats.filter(line)
    assert line.about["left_out"] == "990"  # type: ignore[attr-defined]
    assert not repeats.filter(record(logging.ERROR, "no %d", 1001))


def test_information_passes_unless_it_is_of_refused_calls() -> None:
    repeats = Repeats(lambda: 0.0)
    assert all(repeats.filter(record(logging.INFO, "%s %s", rpc="EndEpisode", code="OK")) for _ in range(1000))
    refused = [repeats.filter(record(logging.INFO, "%s %s", rpc="Infer", code="UNAUTHENTICATED")) for _ in range(1000)]
    assert sum(refused) == 10
    assert repeats.filter(record(logging.INFO, "%s %s", rpc="GetInfo", code="UNAUTHENTICATED"))

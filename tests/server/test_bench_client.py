"""The load tool against a running service: its figures add up, and errors are counted by their kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from patience import patient

from pirl_contract.commands.bench_client import main


def seconds(alone_s: float) -> str:
    """A duration in which a busy machine answers too."""
    return f"{patient(alone_s):.3f}"


def figures(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("transport", ["session", "unary"])
def test_robots_ask_as_fast_as_they_are_answered(
    service: Any, capsys: pytest.CaptureFixture[str], transport: str
) -> None:
    found = figures(capsys, service.address, "--robots", "2", "--duration", seconds(0.5), "--transport", transport)
    assert found["answers"] > 2
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert found["errors"] == {}
    assert found["answers"] == service.engine.stats().answered


def test_a_rate_is_kept(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = figures(capsys, service.address, "--rate", "20", "--duration", "1")
    assert found["answers"] + found["turns_missed"] in (19, 20, 21)


def test_refusals_are_counted_by_their_kind(service: Any, make_policy: Any, capsys: pytest.CaptureFixture[str]) -> None:
    service.engine.swap(make_policy(version="v2", mark=float("nan")))
    found = figures(capsys, service.address, "--duration", seconds(0.2))
    assert found["answers"] == 0
    assert list(found["errors"]) == ["policy server rejected the call (internal)"]


def test_a_table_for_people_and_a_server_that_is_not_there(service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([service.address, "--duration", "0.1"]) == 0
    assert "p99_ms" in capsys.readouterr().out
    assert main(["127.0.0.1:1", "--duration", "0.1"]) == 1
    assert "not reachable" in capsys.readouterr().err
    with pytest.raises(ValueError, match="--robots"):
        main([service.address, "--robots", "0"])

"""The loop's page in a real browser, against a server with tokens: what it shows, and that its buttons act."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser
from patience import until
from whole_server import Server

from pirl_server.config.loop import Loop, LoopCanary
from pirl_server.jobs.job import Status
from pirl_server.loop.machine import begin
from pirl_server.loop.state import LoopState, Phase, Rates, Round, Tally

SPEC = Loop(
    task="PushCube-v1", rounds=10, episodes_per_round=50, max_robot_minutes=600, canary=LoopCanary(episodes=20)
)  # fmt: skip
NASTY = "v1: <img src=x onerror=\"document.title='broken in'\"> held-out action error 9 against 1 of the base"
ROUNDS = (
    Round(0, "3f9c1d20a7b4", "b01dfacade00", "promoted", "after the promotion: 45 of 50", Tally(50, 20), "",
          Tally(20, 16, 100, 2), Tally(50, 20, 100, 2), "", Rates(200, 82, 121, 0.0001, 0.0004)),
    Round(1, "b01dfacade00", "0ddba11c0de5", "rejected", NASTY, Tally(50, 30)),
)  # fmt: skip


@pytest.fixture
def server(tmp_path: Path, make_policy: Any) -> Iterator[Server]:
    made = Server(tmp_path, make_policy())
    yield made
    made.close()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    made = Browser(tmp_path / "browser")
    yield made
    made.close()


def running() -> LoopState:
    """In its third round's canary."""
    return replace(
        begin(SPEC, "2026-01-01T00:00:00.000+00:00"),
        round=2, phase=Phase.CANARY, base="b01dfacade00", candidate="cafe5eedf00d", collected=Tally(50, 31),
        offline="held-out action error 0.31 against 0.3 of the base: 1.03 times, the limit is 2",
        rates=Rates(200, 121, 140, 0.001, 0.02), canary_robots=("arm-1",), canary=Tally(3, 2, 60, 1),
        compared=Tally(50, 31, 900, 9), robot_minutes=123.45, promotions=1, rounds=ROUNDS,
    )  # fmt: skip


@needs_browser
def test_the_page_shows_the_loop_and_its_buttons_act(server: Server, browser: Browser) -> None:
    hosted = server.jobs.hosted
    job = server.jobs.submit(SPEC).id
    assert hosted.next(0.0, lambda: False) is not None
    hosted.show(job, running().shown())
    browser.open(f"{server.url}/dashboard")
    until(lambda: browser.text("message") == "This server asks for a token.")
    browser.type("token", "wrong")
    until(lambda: browser.text("message") == "This token is not valid.")
    browser.type("token", server.tokens.create("ada", ["trainer"]))
    until(lambda: browser.text("task") == "PushCube-v1", lambda: browser.text("message"))
    shown = {name: browser.text(name) for name in ("status", "round", "collected", "canary", "minutes", "simulation")}
    assert shown == {
        "status": "running",
        "round": "3 of 10",
        "collected": "50 of 50 episodes, 31 succeeded",
        "canary": "3 of 20 episodes on arm-1, 2 succeeded; production before: 31 of 50 (62 %)",
        "minutes": "123.5 min of 600",
        "simulation": "candidate, base: 140 of 200 (70 %); 121 of 200 (61 %); p of no gain 0.020",
    }
    assert "1.03 times, the limit is 2" in browser.text("offline")
    rows = browser.value("[...document.querySelectorAll('#rounds tr')].map(r => [...r.cells].map(c => c.innerText))")
    assert rows[1][:3] == ["1", "promoted", "3f9c1d20a7b4"]
    assert rows[1][4:7] == ["121 of 200 (61 %); 82 of 200 (41 %)", "4.0e-4", "16 of 20 (80 %); 20 of 50 (40 %)"]
    assert rows[0][1::6] == ["rejected", NASTY]
    assert browser.value("document.title") == "pirl: learning loop", "a reason is text, never markup"

    hosted.show(job, replace(running(), canary=Tally(4, 3)).shown())
    until(lambda: browser.text("canary").startswith("4 of 20"), lambda: browser.text("canary"))
    assert not browser.value("document.getElementById('pause').disabled")
    browser.click("pause")
    until(lambda: browser.text("status") == "paused", lambda: browser.text("message"))
    assert server.jobs.get(job).status is Status.PAUSED
    if folder := os.environ.get("PIRL_SCREENSHOTS"):
        browser.screenshot(Path(folder) / "dashboard.png")
    browser.click("resume")
    until(lambda: browser.text("status") == "running", lambda: browser.text("message"))
    browser.click("cancel")
    assert browser.text("cancel") == "Cancel the loop? Click again"
    assert not hosted.cancelled(job)
    browser.click("cancel")
    until(lambda: hosted.cancelled(job))
    hosted.settle(job, Status.CANCELLED, "cancelled in round 2, phase canary", running().shown())
    until(lambda: browser.text("status") == "cancelled: cancelled in round 2, phase canary")
    assert browser.text("round") == "2 of 10"
    assert browser.value("['pause', 'resume', 'cancel'].every(id => document.getElementById(id).disabled)")


@needs_browser
def test_a_scope_that_may_only_look_is_told_so_and_a_phone_is_wide_enough(server: Server, browser: Browser) -> None:
    job = server.jobs.submit(SPEC).id
    assert server.jobs.hosted.next(0.0, lambda: False) is not None
    server.jobs.hosted.show(job, running().shown())
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    browser.open(f"{server.url}/dashboard")
    until(lambda: browser.text("message") == "This server asks for a token.")
    browser.type("token", server.tokens.create("bob", ["operator"]))
    until(lambda: browser.text("status") == "running", lambda: browser.text("message"))
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), "only the table scrolls"
    browser.click("pause")
    until(lambda: "scope does not allow" in browser.text("refused"), lambda: browser.text("message"))
    assert server.jobs.get(job).status is Status.RUNNING
    if folder := os.environ.get("PIRL_SCREENSHOTS"):
        browser.screenshot(Path(folder) / "dashboard-phone.png")


def test_the_page_loads_nothing_from_elsewhere(server: Server) -> None:
    with server.web() as web:
        page, script = web.get("/dashboard"), web.get("/dashboard.js")
    assert (page.status_code, script.status_code) == (200, 200)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    for text in (page.text, script.text):
        assert "http:" not in text
        assert "https:" not in text
        assert "innerHTML" not in text

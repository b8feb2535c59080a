"""The dashboard in a real browser: robots and their stop, models, the loop; it loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser
from dashboard_world import NASTY, Arm, add_version, enter, evaluated, shot, shows, with_cameras
from furnished_server import LOOP, MARKUP, loop_state
from patience import patient, until
from serve_process import free_port
from whole_server import Server

from pirl_contract import Contract
from pirl_server.api.stop_listener import stop_door
from pirl_server.jobs.job import Status
from pirl_server.loop.state import Tally


@pytest.fixture
def contract_with_cameras(contract: Contract) -> Contract:
    return with_cameras(contract)


@pytest.fixture
def server(tmp_path: Path, make_policy: Any, contract_with_cameras: Contract) -> Iterator[Server]:
    """With a port for stops, which may be called from the page."""
    port = free_port()
    made = Server(tmp_path, make_policy(contract=contract_with_cameras), stop_port=port)
    with stop_door("127.0.0.1", port, rest_port=made.rest.port) as open_door:
        open_door(made.api)
        yield made
    made.close()


@pytest.fixture
def arms(server: Server, contract_with_cameras: Contract) -> Iterator[list[Arm]]:
    fleet = server.tokens.create("fleet", ["robot"])
    made = [Arm(server, contract_with_cameras, name, fleet) for name in ("arm-1", "arm-2")]
    yield made
    for arm in made:
        arm.close()


@needs_browser
def test_robots_are_seen_and_stopped_with_one_press(server: Server, arms: list[Arm], browser: Browser) -> None:
    arms[0].drive(60, instruction=NASTY)
    arms[1].drive(60, human=3, limited=60)
    enter(browser, server, "robots", "operator")
    shows(
        browser, "2 of 2 connected", NASTY, "clear", "limited", "none of the last 60 steps", "limit 60", "human", "p99"
    )
    assert browser.value("document.title") == "pirl: robots", "an instruction is text, never markup"
    loaded = "[...document.querySelectorAll('.live img')].filter(i => i.naturalWidth === 128).length"
    until(lambda: browser.value(loaded) == 4, "two cameras of two robots")
    assert browser.value("document.querySelector('.live img').alt") == "camera base of robot arm-1"
    first = browser.value("document.querySelector('.live img').src")
    arms[0].drive(3)
    until(lambda: browser.value("document.querySelector('.live img').src") not in ("", first), "a newer image")
    shot(browser, "robots")

    browser.click("stop-arm-1")
    assert arms[0].stopped.wait(patient(20)), browser.text("app")
    assert arms[0].events[-1].emergency_stop.reason == "pressed in the dashboard"
    assert not arms[1].stopped.is_set(), "one robot is stopped, not its neighbour"
    until(lambda: "Notified: arm-1." in browser.text("app"), lambda: browser.text("app"))
    shows(browser, "stop sent")
    stops = [url for url in browser.requested if url.endswith("/emergency-stop")]
    assert stops, "sent"
    assert all(f":{server.api.state.services.stop_port}/" in url for url in stops), (
        "by the port that takes nothing else"
    )
    browser.click("stop-all")
    assert arms[1].stopped.wait(patient(20))
    for arm in arms:
        arm.close()
    until(lambda: "0 of 2 connected" in browser.text("main"))
    browser.click("stop-arm-1")
    until(lambda: "NOT SENT: no connected robot to notify" in browser.text("app"), lambda: browser.text("app"))
    assert "Use the stop at the robot" in browser.text("app")
    assert [line["result"] for line in server.audited("emergency stop")] == ["notified", "notified", "not connected"]
    assert browser.errors == []


@needs_browser
def test_a_stop_takes_the_rest_port_where_the_other_does_not_answer(
    tmp_path: Path, make_policy: Any, contract: Contract, browser: Browser
) -> None:
    with closing(Server(tmp_path, make_policy(), stop_port=free_port())) as server:  # nothing listens there
        arm = Arm(server, contract, "arm-1", server.tokens.create("fleet", ["robot"]))
        enter(browser, server, "robots", "trainer")
        shows(browser, "arm-1")
        browser.click("stop-all")
        assert arm.stopped.wait(patient(20)), browser.text("app")
        until(lambda: "Notified: arm-1." in browser.text("app"), lambda: browser.text("app"))
        arm.close()


@needs_browser
def test_a_stop_without_a_token_says_that_it_was_not_sent(server: Server, arms: list[Arm], browser: Browser) -> None:
    browser.open(f"{server.url}/dashboard")
    until(lambda: browser.text("message") == "This server asks for a token.")
    browser.click("stop-all")
    until(lambda: "NOT SENT: the server asks for a token" in browser.text("app"), lambda: browser.text("app"))
    assert not any(arm.stopped.is_set() for arm in arms)


@needs_browser
def test_a_server_without_tokens_takes_a_stop_from_its_page(server: Server, arms: list[Arm], browser: Browser) -> None:
    server.gate.open, server.gate._tokens = True, None
    browser.open(f"{server.url}/dashboard/icon.svg")
    browser.value("sessionStorage.clear()")
    browser.open(f"{server.url}/dashboard")
    shows(browser, "2 of 2 connected")
    browser.click("stop-all")
    assert all(arm.stopped.wait(patient(20)) for arm in arms), browser.text("app")
    until(lambda: "Notified: arm-1, arm-2." in browser.text("app"), lambda: browser.text("app"))
    (stop,) = {url for url in browser.requested if url.endswith("/emergency-stop")}
    assert f":{server.api.state.services.stop_port}/" in stop, "by the port that takes nothing else"


@needs_browser
def test_a_version_is_promoted_and_rolled_back_with_its_evidence(
    server: Server, tmp_path: Path, contract_with_cameras: Contract, browser: Browser
) -> None:
    for version, successes in (("v1", 80), ("v2", 91)):
        evaluated(server, version, successes)
    add_version(server, tmp_path, "v3", contract_with_cameras, "v2")
    enter(browser, server, "models", "operator")
    until(lambda: browser.text("production") == "v1", lambda: browser.text("main"))
    browser.click_on("#version-v3 .row")
    shows(browser, "None yet: start a job of kind evaluate.")
    browser.click("promote-v3")
    assert browser.text("promote-v3") == "Every robot changes at once. Promote?"
    browser.click("promote-v3")
    shows(browser, "the promotion gate rejected v3")
    assert server.registry.aliases()["production"] == "v1"
    browser.click_on("#version-v2 .row")
    shows(browser, "91 of 100, 91 %")
    browser.click("promote-v2"), browser.click("promote-v2")
    until(lambda: browser.text("production") == "v2", lambda: browser.text("main"))
    assert server.engine.current is not None
    assert server.engine.current.version == "v2"
    browser.type_into("#main .production input", "it shakes: 3 of 9 against 40 of 50")
    browser.click("rollback"), browser.click("rollback")
    until(lambda: browser.text("production") == "v1", lambda: browser.text("main"))
    until(lambda: "it shakes: 3 of 9 against 40 of 50" in browser.text("history"), lambda: browser.text("history"))
    history = browser.value("[...document.querySelectorAll('#history .badge')].map(each => each.innerText)")
    assert history[:3] == ["rolled back", "promoted", "refused"]
    tree = browser.value("[...document.querySelectorAll('.tree > li > ul code')].map(each => each.innerText)")
    assert tree == ["v3"], "below v2, which it was learnt from"
    shot(browser, "models")
    assert browser.errors == []


@needs_browser
def test_a_version_that_takes_itself_back_is_seen_with_the_evidence(
    tmp_path: Path, make_policy: Any, contract_with_cameras: Contract, browser: Browser
) -> None:
    policy = make_policy(contract=contract_with_cameras)
    with closing(Server(tmp_path, policy, versions=("v1", "vnan"), watched=True)) as server:
        arm = Arm(server, contract_with_cameras, "arm-1", server.tokens.create("fleet", ["robot"]))
        enter(browser, server, "models/vnan")
        shows(browser, "rejects it", "no evaluation")
        browser.type_into("#version-vnan fieldset input", "a version whose chunks are NaN")
        browser.click_on("#version-vnan input[type=checkbox]")
        browser.click("promote-vnan"), browser.click("promote-vnan")
        until(lambda: browser.text("production") == "vnan", lambda: browser.text("main"))
        with suppress(ValueError, ConnectionError):  # no robot gets NaN
            arm.drive(3)
        until(lambda: browser.text("watch") == "rolled back", lambda: browser.text("main"))
        assert browser.text("production") == "v1"
        assert "chunks were not finite, none of the version before" in browser.text("watch-reason")
        until(lambda: "by auto-rollback" in browser.text("history"), lambda: browser.text("history"))
        assert "vnan is worse than v1" in browser.text("history")
        arm.close()


@needs_browser
def test_two_versions_are_compared_without_saying_which_is_which(
    tmp_path: Path, make_policy: Any, contract_with_cameras: Contract, browser: Browser
) -> None:
    with closing(Server(tmp_path, make_policy(contract=contract_with_cameras), watched=True)) as server:
        enter(browser, server, "models")
        shows(browser, "Blinded comparisons", "None yet.")
        browser.click_on("section[aria-label='Blinded comparisons'] summary")
        browser.choose("trial-first", "v1"), browser.choose("trial-second", "v2")
        browser.type_into("#trial-robots", "arm-1 arm-2")
        browser.type_into("#trial-reason", "new data")
        browser.click("trial-begin"), browser.click("trial-begin")
        shows(browser, "the promotion gate rejected", "v2")
        assert server.api.state.services.deciding.ab.running is None, "nobody was asked past the gate"
        browser.click("trial-force")
        browser.click("trial-begin"), browser.click("trial-begin")
        until(lambda: browser.sees("#trials li"), lambda: browser.text("main"))
        trial = server.api.state.services.deciding.ab.running
        shown = browser.text(trial.id)
        assert all(words in shown for words in ("running", "arm-1, arm-2", "0 of at most 150", "hidden while it runs"))
        browser.type_into(f"#{trial.id} input", "the robots are needed")
        browser.click(f"stop-{trial.id}"), browser.click(f"stop-{trial.id}")
        until(lambda: "stopped" in browser.text(trial.id), lambda: browser.text("main"))
        assert server.api.state.services.deciding.ab.running is None
        reasons = [line.get("reason") for line in server.audited("ab trial ended")]
        assert reasons == ["stopped by ada-admin (rest:127.0.0.1): the robots are needed"]
        shot(browser, "trials")
        assert browser.errors == []


@needs_browser
def test_the_page_shows_the_loop_and_its_buttons_act(server: Server, browser: Browser) -> None:
    hosted = server.jobs.hosted
    job = server.jobs.submit(LOOP).id
    assert hosted.next(0.0, lambda: False) is not None
    hosted.show(job, loop_state().shown())
    browser.open(f"{server.url}/dashboard#/loop")
    until(lambda: browser.text("message") == "This server asks for a token.")
    browser.type("token", "wrong")
    until(lambda: browser.text("message") == "This token is not valid.")
    browser.type("token", server.tokens.create("ada", ["trainer"]))
    until(lambda: browser.sees("#task") and browser.text("task") == "PushCube-v1", lambda: browser.text("message"))
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
    assert rows[0][1::6] == ["rejected", MARKUP]
    assert browser.value("document.title") == "pirl: loop", "a reason is text, never markup"

    hosted.show(job, replace(loop_state(), canary=Tally(4, 3)).shown())
    until(lambda: browser.text("canary").startswith("4 of 20"), lambda: browser.text("canary"))
    assert not browser.value("document.getElementById('pause').disabled")
    browser.click("pause")
    until(lambda: browser.text("status") == "paused", lambda: browser.text("main"))
    assert server.jobs.get(job).status is Status.PAUSED
    shot(browser, "loop")
    browser.click("resume")
    until(lambda: browser.text("status") == "running", lambda: browser.text("main"))
    browser.click("cancel")
    assert browser.text("cancel") == "Cancel the loop? Click again"
    assert not hosted.cancelled(job)
    browser.click("cancel")
    until(lambda: hosted.cancelled(job))
    hosted.settle(job, Status.CANCELLED, "cancelled in round 2, phase canary", loop_state().shown())
    until(lambda: browser.text("status") == "cancelled: cancelled in round 2, phase canary")
    assert browser.text("round") == "2 of 10"
    assert browser.value("['pause', 'resume', 'cancel'].every(id => document.getElementById(id).disabled)")


@needs_browser
def test_a_scope_that_may_only_look_is_told_so_and_a_phone_is_wide_enough(server: Server, browser: Browser) -> None:
    job = server.jobs.submit(LOOP).id
    assert server.jobs.hosted.next(0.0, lambda: False) is not None
    server.jobs.hosted.show(job, loop_state().shown())
    browser.shape(390, 800, mobile=True)
    enter(browser, server, "loop", "operator")
    until(lambda: browser.sees("#status") and browser.text("status") == "running", lambda: browser.text("message"))
    assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), "only the table scrolls"
    browser.click("pause")
    until(lambda: "scope does not allow" in browser.text("refused"), lambda: browser.text("main"))
    assert server.jobs.get(job).status is Status.RUNNING

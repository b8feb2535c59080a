"""Episodes in the dashboard: filters, labels by key with undo, and playback of what was recorded over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser
from dashboard_world import NASTY, SIDE, Arm, enter, shot, shows, with_cameras
from patience import until
from whole_server import Server

from pirl_contract import Contract
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.proposals import Proposal

PUSH = "push the cube to the goal"
ROWS = "[...document.querySelectorAll('#episodes tr')].map(row => [...row.cells].map(cell => cell.innerText))"


@pytest.fixture
def server(tmp_path: Path, make_policy: Any, contract: Contract) -> Iterator[Server]:
    """With four episodes of two robots; the newest is chosen first."""
    made = Server(tmp_path, make_policy(contract=with_cameras(contract)))
    fleet = made.tokens.create("fleet", ["robot"])
    for name, outcome, steps, instruction in (
        ("arm-1", "success", 6, PUSH), ("arm-2", "unlabeled", 6, NASTY), ("arm-2", "failure", 6, PUSH),
        ("arm-1", "unlabeled", 24, PUSH),
    ):  # fmt: skip
        arm = Arm(made, with_cameras(contract), name, fleet)
        arm.drive(steps, instruction=instruction, human=3 if steps == 24 else 0, limited=3 if steps == 24 else 0)
        arm.end(outcome)
        arm.close()
    yield made
    made.close()


def labels(browser: Browser) -> list[str]:
    return [row[3] for row in browser.value(ROWS)]


@needs_browser
def test_episodes_are_filtered_and_labelled_by_key_with_undo(server: Server, browser: Browser) -> None:
    enter(browser, server, "episodes", "operator")
    until(lambda: len(browser.value(ROWS)) == 4, lambda: browser.text("main"))
    assert labels(browser) == ["unlabelled", "failure", "unlabelled", "success"]
    assert browser.value(ROWS)[2][2] == NASTY
    assert browser.value("document.title") == "pirl: episodes", "an instruction is text, never markup"
    browser.press("s")
    until(lambda: labels(browser)[0] == "success", lambda: browser.text("main"))
    for key in "ujjf":  # faster than the page is drawn: each means what was chosen when it was pressed
        browser.press(key)
    until(lambda: labels(browser)[0] == "unlabelled", lambda: browser.text("main"))
    until(lambda: labels(browser)[2] == "failure", lambda: browser.text("main"))
    labelled = [line["label"] for line in server.audited("label changed")]
    assert labelled == ["OUTCOME_SUCCESS", "OUTCOME_UNLABELED", "OUTCOME_FAILURE"]
    assert [line["actor"] for line in server.audited("label changed")] == 3 * ["ada-operator (rest:127.0.0.1)"]

    browser.type_into("#filter-robot", "arm-2")
    assert labels(browser) == ["unlabelled", "failure", "failure", "success"], "what is typed is no label"
    with server.web(server.tokens.create("bob", ["operator"])) as web:  # what is typed stays while the list is renewed
        newest = web.get("/v1/episodes?limit=1").json()["data"][0]["id"]
        assert web.post(f"/v1/episodes/{newest}/labels", json={"success": True}).status_code == 201
    until(lambda: labels(browser)[0] == "success", lambda: browser.text("main"))
    browser.press("Enter")
    until(lambda: len(browser.value(ROWS)) == 2, lambda: browser.text("main"))
    assert "robot=arm-2" in browser.value("location.hash")
    shot(browser, "episodes")
    assert browser.errors == []


@needs_browser
def test_what_the_filters_show_is_frozen_as_a_dataset(server: Server, browser: Browser) -> None:
    enter(browser, server, "episodes?robot=arm-2", "trainer")
    until(lambda: len(browser.value(ROWS)) == 2, lambda: browser.text("main"))
    browser.click_on("#datasets summary")
    browser.type("dataset-name", "arm-2-first")
    shows(browser, "Datasets (1)", "arm-2-first", "0 / 1")
    datasets = server.api.state.services.episodes.datasets
    assert [each.id for each in datasets.get("arm-2-first").episodes] == browser.value(
        "[...document.querySelectorAll('#episodes a')].map(link => link.hash.slice('#/episodes/'.length))"
    )
    browser.click("check-arm-2-first")
    shows(browser, "as frozen")
    browser.type("dataset-name", "arm-2-first")
    shows(browser, "is there already, and is never changed")
    assert browser.errors == []


@needs_browser
def test_a_label_that_another_person_gave_meanwhile_is_not_overwritten(server: Server, browser: Browser) -> None:
    enter(browser, server, "episodes", "operator")
    until(lambda: len(browser.value(ROWS)) == 4, lambda: browser.text("main"))
    browser.value("window.fetch = (was => (path, more) => String(path).startsWith('/v1/episodes?')"
                  " ? new Promise(() => {}) : was(path, more))(window.fetch)")  # fmt: skip
    newest = server.api.state.services.episodes.page(EpisodeSelection(), 1).entries[0].summary.id
    with server.web(server.tokens.create("bob", ["operator"])) as web:
        assert web.post(f"/v1/episodes/{newest}/labels", json={"success": False}).status_code == 201
    browser.press("s")
    shows(browser, "Another person labelled it meanwhile: nothing was changed.")
    until(lambda: labels(browser)[0] == "failure", lambda: browser.text("main"))
    assert server.api.state.services.episodes.summary(newest).success is False


@needs_browser
def test_a_proposal_is_accepted_only_as_it_was_shown(server: Server, browser: Browser) -> None:
    store = server.api.state.services.episodes
    newest = store.page(EpisodeSelection(), 1).entries[0].summary.id
    shown = Proposal(True, 0.9, "abcdefabcdef", "2026-01-01T00:00:00.000+00:00")
    store.proposals.append(lambda: {newest: shown})
    enter(browser, server, "episodes", "operator")
    shows(browser, "proposed: success, p 0.90")
    browser.value("window.fetch = (was => (path, more) => String(path).startsWith('/v1/episodes?')"
                  " ? new Promise(() => {}) : was(path, more))(window.fetch)")  # fmt: skip
    store.proposals.append(lambda: {newest: replace(shown, success=False, probability=0.1, at="2026-01-02")})
    browser.press("a")
    shows(browser, "look again", "proposed: failure, p 0.10")
    assert store.summary(newest).success is None
    browser.press("a")
    until(lambda: store.summary(newest).success is False, lambda: browser.text("main"))
    assert browser.errors == []


@needs_browser
def test_an_episode_is_played_back_as_it_was_recorded(server: Server, browser: Browser) -> None:
    enter(browser, server, "episodes", "operator")
    until(lambda: len(browser.value(ROWS)) == 4, lambda: browser.text("main"))
    browser.press("Enter")
    until(lambda: browser.text("step-now").startswith("step 0 of 23"), lambda: browser.text("main"))
    exact = (
        "[...document.querySelectorAll('.player img')].filter(i => i.naturalWidth && i.dataset.step === '%d').length"
    )
    until(lambda: browser.value(exact % 0) == 2, "both cameras' first image")
    assert browser.value("document.querySelector('.player img').naturalWidth") == SIDE
    strip = browser.value("document.querySelector('.strip').getAttribute('aria-label')")
    assert strip == "steps driven by: policy 0 to 20, human 21 to 23; 7 chunks"
    shows(browser, "chunk begins", "altered by the governor", "dq0, rad", "executed action")
    before = browser.value("document.querySelector('.player img').src")
    browser.press("ArrowRight")
    until(lambda: browser.text("step-now").startswith("step 1 of 23"))
    browser.press("]"), browser.press("]")
    until(lambda: browser.text("step-now").startswith("step 6 of 23"), lambda: browser.text("step-now"))
    until(lambda: browser.value(exact % 6) == 2, "the images of that step")
    assert browser.value("document.querySelector('.player img').src") != before
    until(lambda: browser.sees(".player .chart canvas"), "curves")
    shot(browser, "playback")
    browser.press(" ")
    until(lambda: browser.text("step-now").startswith("step 23 of 23"), lambda: browser.text("step-now"))
    browser.press("f")
    until(lambda: browser.text("label") == "failure", lambda: browser.text("main"))
    browser.press("u")
    until(lambda: browser.text("label") == "unlabelled", lambda: browser.text("main"))
    assert browser.errors == []

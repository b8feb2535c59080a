"""Every view of the dashboard by day and by night, at a desk and on a phone: usable by all, whole without a network."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import Browser, needs_browser
from dashboard_world import enter, shows
from furnished_server import FOURTH, furnished
from patience import until
from PIL import Image
from whole_server import Server

from pirl_server.jobs.job import Status

AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""of axe-core 4.14.1, dist of npm"""
STOP_ALL = "STOP ALL: emergency stop of all robots"
IN_DOCS = ("robots", "job", "episode", "models", "robots-phone", "job-phone")
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
DESK, PHONE = (1280, 860), (390, 844)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, make_policy: Any) -> Iterator[Server]:
    with furnished(tmp_path_factory.mktemp("furnished"), make_policy, make_policy().contract) as made:
        yield made


def views(server: Server) -> dict[str, tuple[str, str]]:
    """Name -> where it is, and an element that shows that it is whole."""
    running = next(
        job for job in server.jobs.list(limit=100) if job.status is Status.RUNNING and job.spec.kind != "loop"
    )
    episode = server.web(server.tokens.create(os.urandom(4).hex(), ["admin"]))
    with episode as web:
        longest = max(web.get("/v1/episodes").json()["data"], key=lambda each: each["human_steps"] or 0)
    return {
        "robots": ("robots", ".live img"),
        "jobs": ("jobs", "#jobs tr"),
        "job": (f"jobs/{running.id}", ".chart canvas, #eta"),
        "job-form": ("jobs/new/finetune_sim", "#field-task"),
        "episodes": ("episodes", "#episodes tr"),
        "episode": (f"episodes/{longest['id']}", ".player .chart canvas"),
        "models": (f"models/{FOURTH}", ".rate circle, .gate"),
        "loop": ("loop", "#rounds tr"),
    }


def go(browser: Browser, view: str, whole: str) -> None:
    browser.value(f"location.hash = '#/{view}'")
    until(lambda: all(map(browser.sees, whole.split(", "))), lambda: browser.text("main"))
    browser.value("scrollTo(0, 0)")
    # what is drawn next has the colours and the size of this moment
    browser.value("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def keep(browser: Browser, name: str) -> None:
    """Write an image of the docs, where a person asked for it."""
    if name in IN_DOCS and (folder := os.environ.get("PIRL_SCREENSHOTS")):
        path = Path(folder) / f"dashboard-{name}.png"
        seen = (
            "[...document.querySelectorAll('.live')].filter(e => e.getBoundingClientRect().top < innerHeight)"
            ".every(each => each.querySelector('img')?.complete)"
        )
        until(lambda: browser.value(seen), "images")
        browser.screenshot(path)
        with Image.open(path) as image:
            image.convert("RGB").quantize(256, kmeans=4, dither=Image.Dither.NONE).save(path, optimize=True)


def faults(browser: Browser) -> list[str]:
    """What axe-core finds wrong: rule, element, why."""
    found = browser.value(
        f"axe.run(document, {{resultTypes: ['violations'], runOnly: {RULES}}}).then(r => r.violations.flatMap("
        "v => v.nodes.map(n => `${v.id}: ${n.html.slice(0, 160)}: ${n.failureSummary}`)))"
    )
    return [str(each) for each in found]


@needs_browser
@pytest.mark.parametrize("dark", [False, True], ids=["desk by day", "phone by night"])
def test_every_view_is_usable_and_nothing_leaves_the_server(server: Server, browser: Browser, dark: bool) -> None:
    axe = AXE.read_text()
    assert hashlib.sha256(axe.encode()).hexdigest() == AXE_SHA256
    browser.shape(*(PHONE if dark else DESK), dark=dark, mobile=dark)
    enter(browser, server, "robots")
    shows(browser, "3 of 4 connected")
    browser.value(f"(() => {{ {axe} }})()")
    wrong = list[str]()
    for name, (view, whole) in views(server).items():
        go(browser, view, whole)
        keep(browser, f"{name}-phone" if dark else name)
        wrong += [f"{name}: {each}" for each in faults(browser)]
        assert browser.value("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} is too wide"
    assert not wrong, "\n".join(wrong)
    assert browser.errors == [], "of scripts, or of the content security policy"
    hosts = {urlsplit(url).netloc for url in browser.requested if url.startswith(("http", "ws"))}
    assert hosts == {f"127.0.0.1:{server.rest.port}"}
    assert len(browser.requested) > 30, "the browser's log was kept"
    kept = browser.value("[Object.keys(localStorage), document.cookie, Object.keys(sessionStorage)]")
    assert kept == [[], "", ["token"]]


@needs_browser
def test_axe_finds_what_is_wrong(server: Server, browser: Browser) -> None:
    """The control of the test above."""
    enter(browser, server, "robots", "operator")
    browser.value(f"(() => {{ {AXE.read_text()} }})()")
    browser.value("document.getElementById('main').append(document.createElement('button'))")
    assert [each.partition(":")[0] for each in faults(browser)] == ["button-name"]


@needs_browser
def test_the_page_is_worked_by_keys_alone(server: Server, browser: Browser) -> None:
    enter(browser, server, "loop", "operator")
    browser.value("(() => { const to = document.querySelector('.skip'); to.focus(); to.blur(); })()")
    browser.press("Tab", modifiers=8)
    names = []
    for _ in range(9):
        browser.press("Tab")
        names.append(
            browser.value("document.activeElement.getAttribute('aria-label') || document.activeElement.innerText")
        )
    order = ["Skip to content", "pirl", "Robots", "Jobs", "Episodes", "Models", "Loop", STOP_ALL]
    assert names[:8] == order
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") != "none", "the focus is seen"

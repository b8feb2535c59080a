"""Jobs in the dashboard: a form from the OpenAPI document, curves and log as they come, pause, resume, cancel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, needs_browser
from dashboard_world import enter, shot, shows
from patience import until
from whole_server import Server

from pirl_server.config.jobs import Sft
from pirl_server.jobs.job import Status

JOB = """
import json, math, sys, time
from pathlib import Path
from pirl_server.jobs.reporter import Reporter
directory = Path(sys.argv[1])
counter = directory / "counter"
step = int(counter.read_text()) if counter.exists() else 0
print("begins at step", step, "<img src=x onerror=document.title='broken-in'>", flush=True)
with Reporter(directory) as report:
    while step < 100_000 and not report.cancelled:
        step += 1
        report.progress(step, 100_000, "learning")
        report.metrics(step=step, loss=math.exp(-step / 40) + 0.02 * math.sin(step), success=1 - math.exp(-step / 60))
        counter.write_text(str(step))
        time.sleep(0.02)
"""
NASTY = "<img src=x onerror=\"document.title='broken in'\">"


@pytest.fixture
def server(tmp_path: Path, make_policy: Any) -> Iterator[Server]:
    made = Server(tmp_path, make_policy(), job=JOB)
    yield made
    made.close()


def points(browser: Browser) -> int:
    """Points of the first curve."""
    label = browser.value("document.querySelector('.chart')?.getAttribute('aria-label') ?? ''")
    return int(label.split(": ")[1].split()[0]) if label else 0


@needs_browser
def test_a_job_is_started_followed_paused_resumed_and_cancelled(server: Server, browser: Browser) -> None:
    enter(browser, server, "jobs", "trainer")
    shows(browser, "No such job.")
    browser.click("new-job")
    until(lambda: browser.sees("#kind"), lambda: browser.text("main"))
    browser.value("(() => { const k = document.getElementById('kind'); k.value = 'sft';"
                  " k.dispatchEvent(new Event('change', {bubbles: true})); })()")  # fmt: skip
    shows(browser, "Supervised training")
    browser.type_into("#field-task", NASTY)
    browser.type_into("#field-seed", "7")
    browser.click_on("details.more summary")
    browser.click_on("details.more details:last-of-type summary")
    browser.type_into("[id='field-config.learning_rate']", "0.002")
    browser.click("start")
    until(lambda: "#/jobs/job_" in browser.value("location.hash"), lambda: browser.text("main"))
    job = str(browser.value("location.hash")).rpartition("/")[2]
    spec = server.jobs.get(job).spec
    assert isinstance(spec, Sft)
    assert (spec.task, spec.seed, spec.config.learning_rate) == (NASTY, 7, 0.002)
    assert spec == Sft(task=NASTY, seed=7, config=type(spec.config)(learning_rate=0.002)), "the rest as by default"

    until(lambda: points(browser) > 5, lambda: browser.text("main"))
    before = points(browser)
    until(lambda: points(browser) > before + 5, "a curve that moves")
    assert browser.value("document.querySelectorAll('.chart canvas').length") == 2
    shows(browser, "of 100000", "left", "begins at step 0 <img src=x")
    assert browser.value("document.title") == "pirl: jobs", "task and log are text, never markup"
    shot(browser, "jobs")

    browser.click("pause")
    until(lambda: browser.text("job-state") == "paused", lambda: browser.text("main"))
    assert server.jobs.get(job).status is Status.PAUSED
    browser.click("resume")
    until(lambda: "begins at step" in browser.text("log").replace("begins at step 0", ""), lambda: browser.text("log"))
    until(lambda: browser.text("job-state") == "running", lambda: browser.text("main"))
    browser.click("cancel")
    assert browser.text("cancel") == "Cancel it? Click again"
    browser.click("cancel")
    until(lambda: browser.text("job-state") == "cancelled", lambda: browser.text("main"))
    browser.click_on(".crumbs a")
    until(lambda: browser.sees("#jobs tr") and "cancelled" in browser.text("jobs"), lambda: browser.text("main"))
    assert NASTY in browser.text("jobs")
    assert browser.errors == []


@needs_browser
def test_a_wrong_setting_is_said_and_nothing_is_started(server: Server, browser: Browser) -> None:
    enter(browser, server, "jobs/new/evaluate", "trainer")
    until(lambda: browser.sees("#field-version"), lambda: browser.text("main"))
    browser.type_into("#field-task", "PushCube-v1")
    browser.type_into("#field-version", "v9")
    browser.click("start")
    shows(browser, "'v9' is neither a version nor an alias in the registry")
    assert server.jobs.list() == []

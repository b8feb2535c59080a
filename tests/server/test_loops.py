"""Loops beside the queue of jobs: threads, restarts and kills in each phase, pause, resume, cancel, failures."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loop_world import Fleet, Worth
from patience import until

from pirl_server.config.jobs import Evaluate
from pirl_server.config.loop import Loop, LoopCanary, LoopEvaluation
from pirl_server.config.success import ModelLabels
from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.loop.controller import Loops
from pirl_server.loop.state import FILE, LoopState, Phase
from pirl_server.loop.world import Action, Promote, StartCanary, Submit, View
from pirl_server.registry.audit import AuditLog

SPEC = Loop(
    task="t", rounds=1, episodes_per_round=10, watch_episodes=10, explore_share=0.25,
    canary=LoopCanary(episodes=6), evaluation=LoopEvaluation(episodes=100),
    success_model=ModelLabels(version="5f0c2a9d71be"),
)  # fmt: skip
MOVES = (Submit, StartCanary, Promote)


class Site:
    """A server's jobs and loops over one folder, and the fleet that they see."""

    def __init__(self, folder: Path, fleet: Fleet) -> None:
        self.folder, self.fleet = folder, fleet
        self.jobs = Supervisor(folder / "jobs", [sys.executable, "-c", ""])
        self.audit = AuditLog(folder / "audit.jsonl")
        self.loops = Loops(self.jobs.hosted, self.audit, lambda job, spec: self.fleet, poll_s=0.002)

    def restart(self) -> None:
        self.close()
        self.__init__(self.folder, self.fleet)  # type: ignore[misc]

    def close(self) -> None:
        self.loops.close()
        self.jobs.close()

    def start(self, spec: Loop = SPEC) -> str:
        """Queue it and wait until it collects."""
        job = self.jobs.submit(spec).id
        until(lambda: self.state(job).get("base") == self.fleet.production)
        return job

    def state(self, job: str) -> dict[str, Any]:
        path = self.folder / "jobs" / job / FILE
        return json.loads(path.read_text()) if path.exists() else {}

    def until_quiet(self) -> None:
        """The loop has seen the fleet as it is now, and waits."""
        looks = Looks(self.fleet)
        until(lambda: looks.quiet)

    def until_phase(self, job: str, phase: Phase) -> None:
        self.work(lambda: self.state(job).get("phase") == phase.value)

    def until_ended(self, job: str) -> Job:
        self.work(lambda: self.jobs.get(job).status.ended)
        return self.jobs.get(job)

    def work(self, reached: Callable[[], bool]) -> None:
        """Robots work and jobs end, each time when the loop has seen everything before."""

        def tick() -> bool:
            self.until_quiet()
            if reached():
                return True
            self.fleet.run(self.fleet.robots[len(self.fleet.episodes) % len(self.fleet.robots)])
            self.fleet.finish()
            return False

        until(tick, limit_s=60.0, every_s=0.0)


class Looks:
    """Counts the looks that led to nothing: after two of them nothing is under way."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet, self._actions, self._seen = fleet, len(fleet.actions), fleet.looks

    @property
    def quiet(self) -> bool:
        if (now := len(self._fleet.actions)) != self._actions:
            self._actions, self._seen = now, self._fleet.looks
        return self._fleet.looks >= self._seen + 3 or self._fleet.idle


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    here = Site(tmp_path, Fleet([Worth(1.0)], base=Worth(0.6)))
    yield here
    here.close()


def test_a_loop_runs_to_its_end_and_leaves_its_trace(site: Site) -> None:
    job = site.start()
    done = site.until_ended(job)
    assert (done.status, done.error) == (Status.SUCCEEDED, None)
    assert done.result is not None
    assert [each["outcome"] for each in done.result["rounds"]] == ["promoted"]
    assert site.fleet.share is None, "robots explore as the server was started"
    events = [event for event in site.jobs.events(job).read() if event.type == "loop"]
    assert [event.id for event in events] == sorted({event.id for event in events})
    phases = [event.data["phase"] for event in events]
    assert list(dict.fromkeys(phases)) == [phase.value for phase in Phase]
    assert "all 1 rounds are done" in events[-1].data["end"]
    lines = [json.loads(line) for line in site.audit.path.read_text().splitlines()]
    assert all(line["actor"] == f"loop {job}" and line["job"] == job for line in lines)
    passed = [phase.value for phase in Phase]
    passed.insert(2, "collect")  # what the success model was sure of is counted before learning begins
    assert [line["phase"] for line in lines if "phase" in line] == passed


def test_its_jobs_name_it_and_are_queued_like_all_others(site: Site) -> None:
    """The loop's job is never started as a process, a job behind it in the queue is."""
    job = site.start()
    other = site.jobs.submit(Evaluate(task="t"))
    until(lambda: site.jobs.get(other.id).status is Status.SUCCEEDED)
    assert site.jobs.get(job).status is Status.RUNNING
    child = site.jobs.submit(Evaluate(task="t"), parent=f"{job} round 0")
    assert site.jobs.submit(Evaluate(task="t"), parent=f"{job} round 0").id == child.id
    assert child.parent == f"{job} round 0"


@pytest.mark.parametrize("phase", list(Phase))
def test_a_restarted_server_continues_it_where_it_was(site: Site, phase: Phase) -> None:
    job = site.start()
    site.until_phase(job, phase)
    before = site.state(job)
    site.restart()
    until(lambda: site.fleet.share == SPEC.explore_share)
    assert {name: site.state(job)[name] for name in ("round", "phase", "base", "child", "candidate")} == {
        name: before[name] for name in ("round", "phase", "base", "child", "candidate")
    }
    assert site.until_ended(job).status is Status.SUCCEEDED
    assert len(site.fleet.jobs) == 4, "nothing was judged, learnt or evaluated twice"


@pytest.mark.parametrize("kind", MOVES)
def test_a_server_killed_after_an_action_and_before_it_was_written_down(site: Site, kind: type[Action]) -> None:
    """The old loop.json is put back: what a kill between the two leaves."""
    job, old = site.start(), site.folder / "old.json"
    done = threading.Event()

    def keep(action: Action) -> None:
        if isinstance(action, kind) and not done.is_set():
            shutil.copy(site.folder / "jobs" / job / FILE, old)
            done.set()

    site.fleet.before = keep
    site.work(done.is_set)
    site.close()
    shutil.copy(old, site.folder / "jobs" / job / FILE)
    site.restart()
    ended = site.until_ended(job)
    assert ended.result is not None
    assert [each["outcome"] for each in ended.result["rounds"]] == ["promoted"]
    assert len(site.fleet.jobs) == 4
    assert site.fleet.previous == ["v0"], "promoted once"


@pytest.mark.parametrize("phase", list(Phase))
def test_a_cancelled_loop_takes_back_what_is_under_way(site: Site, phase: Phase) -> None:
    job = site.start()
    site.until_phase(job, phase)
    production, jobs = site.fleet.production, len(site.fleet.jobs)
    site.jobs.cancel(job)
    until(lambda: site.jobs.get(job).status is Status.CANCELLED)
    assert site.jobs.get(job).error == f"cancelled in round 0, phase {phase.value}"
    assert (site.fleet.canary, site.fleet.working) == ("", [])
    assert (site.fleet.production, len(site.fleet.jobs)) == (production, jobs)
    with pytest.raises(ValueError, match="already cancelled"):
        site.jobs.cancel(job)


@pytest.mark.parametrize("phase", list(Phase))
def test_a_paused_loop_stays_in_its_phase_across_a_restart_and_resumes(site: Site, phase: Phase) -> None:
    job = site.start()
    site.until_phase(job, phase)
    assert site.jobs.hosted.pause(job).status is Status.PAUSED
    site.fleet.paused = True
    site.restart()
    for _ in range(30):
        site.fleet.run("arm-1")
        site.fleet.finish()
    site.until_quiet()
    assert (site.state(job)["phase"], site.jobs.get(job).status) == (phase.value, Status.PAUSED)
    site.fleet.paused = False
    assert site.jobs.hosted.resume(job).status is Status.RUNNING
    assert site.until_ended(job).status is Status.SUCCEEDED


def test_only_a_running_loop_can_be_paused(site: Site) -> None:
    job, other = site.start(), site.jobs.submit(Evaluate(task="t")).id
    with pytest.raises(ValueError, match="is running, not paused"):
        site.jobs.hosted.resume(job)
    with pytest.raises(ValueError, match="kind 'evaluate': only a loop"):
        site.jobs.hosted.pause(other)
    with pytest.raises(KeyError):
        site.jobs.hosted.pause("job_" + 24 * "0")


@pytest.mark.parametrize("phase", list(Phase))
def test_an_error_in_it_fails_the_loop_and_takes_its_canary_back(site: Site, phase: Phase) -> None:
    job = site.start()
    site.until_phase(job, phase)

    def broken(state: LoopState) -> View:
        raise RuntimeError("a bug")

    site.fleet.view = broken  # type: ignore[method-assign]
    until(lambda: site.jobs.get(job).status is Status.FAILED)
    assert site.jobs.get(job).error == "RuntimeError: a bug"
    assert (site.fleet.canary, site.fleet.working) == ("", [])
    assert site.fleet.share is None


def test_what_the_disk_rejects_for_a_moment_is_tried_again(site: Site) -> None:
    job, look, left = site.start(), site.fleet.view, [3]
    site.until_phase(job, Phase.LEARN)

    def busy(state: LoopState) -> View:
        if left[0]:
            left[0] -= 1
            raise OSError("no space left on device")
        return look(state)

    site.fleet.view = busy  # type: ignore[method-assign]
    until(lambda: not left[0])
    assert site.until_ended(job).status is Status.SUCCEEDED


def test_a_damaged_state_fails_the_loop_and_takes_the_canary_back(site: Site) -> None:
    job = site.start()
    site.until_phase(job, Phase.CANARY)
    site.close()
    path = site.folder / "jobs" / job / FILE
    path.write_text(path.read_text()[:40])
    site.restart()
    until(lambda: site.jobs.get(job).status is Status.FAILED)
    assert FILE in (site.jobs.get(job).error or "")
    assert site.fleet.canary == ""


def test_a_loop_whose_folder_was_removed_takes_its_canary_back(site: Site) -> None:
    """And the next one is run."""
    job = site.start()
    site.until_phase(job, Phase.CANARY)
    shutil.rmtree(site.folder / "jobs" / job)
    site.fleet.run(site.fleet.canary_robots[0])
    until(lambda: site.fleet.canary == "" and site.fleet.share is None)
    assert site.until_ended(site.start()).status is Status.SUCCEEDED


def test_a_second_loop_waits_for_the_first(site: Site) -> None:
    first, second = site.start(), site.jobs.submit(SPEC).id
    site.until_phase(first, Phase.LEARN)
    assert site.jobs.get(second).status is Status.QUEUED
    site.until_ended(first)
    until(lambda: site.jobs.get(second).status is Status.RUNNING)
    site.jobs.cancel(second)
    until(lambda: site.jobs.get(second).status is Status.CANCELLED)


def test_closing_does_not_wait_for_a_look(tmp_path: Path) -> None:
    site = Site(tmp_path, Fleet([Worth()]))
    time.sleep(0.01)
    site.close()
    assert not any(thread.name == "loops" for thread in threading.enumerate())

"""A job whose process lives and makes no progress: seen by its signs of life, stopped and tried again where asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx
import pytest
from patience import patient, until
from whole_server import Server

from pirl_server.config.jobs import FinetuneSim
from pirl_server.jobs.events import EventLog
from pirl_server.jobs.heartbeat import BEAT_S, LOOK_S, ProgressWatch, signs
from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.process import process_start
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.jobs.verdict import AGAIN, CANCEL, STALL, verdict

JOB = """
import json, os, signal, sys, time
from pathlib import Path
from pirl_server.jobs.reporter import Reporter
directory = Path(sys.argv[1])
mode = json.loads((directory / "spec.json").read_text())["task"]
attempt = json.loads((directory / "state.json").read_text())["attempt"]
with Reporter(directory, resumable=True) as report:
    report.progress(1, 3, mode)
    (directory / f"pid-{attempt}").write_text(str(os.getpid()))
    if mode == "always" or (mode == "once" and attempt == 1):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            print("still here", flush=True)  # output is no progress
            time.sleep(0.05)
    while mode == "slow" and not (directory / "go").exists():
        report.progress(2, 3, mode)
        time.sleep(0.05)
    report.result({"attempt": attempt})
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "jobs", [sys.executable, "-c", JOB], cancel_grace_s=0.2, close_grace_s=0.2)
    yield made
    made.close()


def spec(mode: str, stall_s: float | None = None, retries: int = 1000) -> FinetuneSim:
    return FinetuneSim(task=mode, stall_s=stall_s, retries=retries)


def test_one_that_hangs_is_stopped_and_its_next_attempt_succeeds(jobs: Supervisor, tmp_path: Path) -> None:
    job = jobs.submit(spec("once", stall_s=patient(4.0)))
    until(lambda: jobs.get(job.id).status.ended, lambda: jobs.get(job.id), limit_s=120.0)
    found = jobs.get(job.id)
    assert found.status is Status.SUCCEEDED
    assert found.causes[0].startswith("attempt 1: stalled: no progress for ")
    assert found.attempt >= 2
    assert process_start(int((tmp_path / "jobs" / job.id / "pid-1").read_text())) is None, "it ignores SIGTERM"


def test_one_that_hangs_each_time_fails_as_often_as_retries_say(jobs: Supervisor) -> None:
    job = jobs.submit(spec("always", stall_s=1.0, retries=1))
    until(lambda: jobs.get(job.id).status.ended, lambda: jobs.get(job.id), limit_s=120.0)
    found = jobs.get(job.id)
    assert (found.status, found.error, found.attempt) == (Status.FAILED, "stalled: no progress for 1 s", 2)


def test_without_a_limit_one_that_hangs_is_left_alone_and_shown(jobs: Supervisor, tmp_path: Path) -> None:
    """The control: the same process, hanging for longer than the limit of the test before."""
    job = jobs.submit(spec("always"))
    folder = tmp_path / "jobs" / job.id
    until(lambda: (folder / "pid-1").exists(), limit_s=60.0)
    before = jobs.signs(jobs.get(job.id))
    assert before.progress is not None
    until(lambda: (jobs.signs(jobs.get(job.id)).heartbeat or "") > before.progress, "a later heartbeat", limit_s=60.0)
    assert jobs.signs(jobs.get(job.id)).progress == before.progress
    assert (jobs.get(job.id).status, jobs.get(job.id).attempt) == (Status.RUNNING, 1)
    jobs.cancel(job.id)
    until(lambda: jobs.get(job.id).status is Status.CANCELLED, limit_s=60.0)
    assert jobs.signs(jobs.get(job.id)) == type(before)(None, None), "nothing runs"


@pytest.mark.parametrize(
    ("code", "stopped", "status"),
    [
        (-9, STALL, Status.QUEUED), (1, STALL, Status.QUEUED), (AGAIN, STALL, Status.QUEUED),
        (0, STALL, Status.SUCCEEDED), (-9, CANCEL, Status.CANCELLED), (1, None, Status.FAILED),
    ],
)  # fmt: skip
def test_however_a_stalled_one_ends_it_is_tried_again_unless_it_is_over(
    code: int, stopped: str | None, status: Status
) -> None:
    running = Job("job_" + "0" * 24, spec("always", 1.0, retries=1), Status.RUNNING, "2026", attempt=1)
    found = verdict(running, code, "killed", stopped, "")
    assert found.status is status
    assert ("stalled: no progress for 1 s" in " ".join(found.causes)) == (status is Status.QUEUED)
    if found.status is Status.QUEUED:
        again = verdict(replace(found, status=Status.RUNNING), code, "killed", stopped, "")
        assert (again.status, again.error) == (Status.FAILED, "stalled: no progress for 1 s")


def test_progress_is_an_event_or_a_checkpoint_and_output_is_none(tmp_path: Path) -> None:
    events = EventLog(tmp_path)
    watch, now_s = ProgressWatch(tmp_path, 100.0), 100.0

    def idle(seconds: int) -> float:
        nonlocal now_s
        for _ in range(seconds):
            now_s += 1.0
            found = watch.look(now_s)
        return found

    assert idle(10) == 10.0
    (tmp_path / "log.txt").write_text("still here")
    assert idle(1) == 11.0
    events.append("progress", {"done": 1})
    assert idle(1) == 0.0
    assert idle(5) == 5.0
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "state.json").write_text("{}")
    assert idle(1) == 0.0
    (tmp_path / "outcomes.jsonl").write_text("{}")
    assert idle(1) == 0.0


def test_only_time_in_which_it_was_looked_at_counts(tmp_path: Path) -> None:
    """A runner that was stopped for a day, with its jobs, ends none of them."""
    watch = ProgressWatch(tmp_path, 0.0)
    assert watch.look(86_400.0) == LOOK_S
    assert watch.look(86_400.5) == LOOK_S + 0.5


def test_a_heartbeat_is_of_the_present_attempt_and_renewed_now_and_then(tmp_path: Path) -> None:
    (tmp_path / ".heartbeat").touch()
    watch = ProgressWatch(tmp_path, 0.0)
    assert signs(tmp_path).heartbeat is None
    watch.look(0.05)
    first = signs(tmp_path).heartbeat
    assert first is not None
    assert abs(datetime.fromisoformat(first) - datetime.now(timezone.utc)) < timedelta(hours=1)
    os.utime(tmp_path / ".heartbeat", (1.0, 1.0))
    watch.look(BEAT_S - 1.0)
    assert signs(tmp_path).heartbeat == "1970-01-01T00:00:01.000+00:00"
    watch.look(BEAT_S + 1.0)
    assert signs(tmp_path).heartbeat != "1970-01-01T00:00:01.000+00:00"


def test_rest_shows_the_signs_of_life_of_what_runs(tmp_path: Path, make_policy: object) -> None:
    made = Server(tmp_path, make_policy(), job=JOB)  # type: ignore[operator]
    try:
        with made.web(made.tokens.create("tom", ["trainer"])) as web:
            id_ = web.post("/v1/jobs", json={"kind": "finetune_sim", "task": "slow"}).json()["id"]
            until(lambda: shown(web, id_)["heartbeat_at"] is not None, limit_s=60.0)
            first = shown(web, id_)["last_progress_at"]
            until(lambda: str(shown(web, id_)["last_progress_at"]) > str(first), limit_s=60.0)
            (listed,) = web.get("/v1/jobs").json()["data"]
            assert listed["last_progress_at"] >= first
            (tmp_path / "jobs" / id_ / "go").touch()
            until(lambda: shown(web, id_)["status"] == "succeeded", limit_s=60.0)
            assert (shown(web, id_)["heartbeat_at"], shown(web, id_)["last_progress_at"]) == (None, None)
            wrong = web.post("/v1/jobs", json={"kind": "finetune_sim", "task": "slow", "stall_s": 0.5})
            assert (wrong.status_code, "stall_s" in wrong.text) == (422, True)
    finally:
        made.close()


def shown(web: httpx.Client, job: str) -> dict[str, object]:
    found: dict[str, object] = web.get(f"/v1/jobs/{job}").json()
    return found

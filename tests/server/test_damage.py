"""Damaged files of jobs and models, and a full disk: robots are served, the rest is named and goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import patient
from process_tree import until
from serve_process import CHECKPOINT, CONTRACT, INSTRUCTION, ServeProcess, observe

from pirl_contract.client import PolicyClient
from pirl_server import atomic_files
from pirl_server.app import adopt
from pirl_server.config.jobs import Sft
from pirl_server.jobs import job, runner
from pirl_server.jobs.events import EventLog, EventTail
from pirl_server.jobs.job import Status
from pirl_server.jobs.store import JobStore
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.registry.versions import Registry

WAITS = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1], 'go').exists(): time.sleep(0.01)"
TRUE = [sys.executable, "-S", "-c", ""]


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "state cut": lambda home: (home / "state.json").write_text("{"),
    "state empty": lambda home: (home / "state.json").write_text(""),
    "state no object": lambda home: (home / "state.json").write_text("[1]"),
    "state no text": lambda home: (home / "state.json").write_bytes(b"\xff\xfe{}"),
    "state deep": lambda home: (home / "state.json").write_text("[" * 200_000),
    "unknown status": lambda home: change(home / "state.json", status="asleep"),
    "status gone": lambda home: (home / "state.json").write_text("{}"),
    "wrong type": lambda home: change(home / "state.json", created=5),
    "NaN": lambda home: (home / "state.json").write_text('{"status": "failed", "created": "", "result": {"x": NaN}}'),
    "half a character": lambda home: change(home / "state.json", error="\ud800"),
    "spec of another kind": lambda home: change(home / "spec.json", kind="dance"),
    "spec gone": lambda home: (home / "spec.json").unlink(),
    "spec a folder": lambda home: ((home / "spec.json").unlink(), (home / "spec.json").mkdir()),
}


@pytest.fixture
def running() -> Iterator[list[Supervisor]]:
    started: list[Supervisor] = []
    yield started
    for each in started:
        each.close()


def ended(jobs: Supervisor, job_id: str) -> Status:
    until(lambda: jobs.get(job_id).status.ended)
    return jobs.get(job_id).status


def spec() -> Sft:
    return Sft(task="push")


@pytest.mark.parametrize("when", ["before the start", "while it runs"])
def test_damaged_jobs_are_put_away_and_the_others_run(tmp_path: Path, running: list[Supervisor], when: str) -> None:
    store = JobStore(tmp_path / "jobs")
    good = store.create(spec())
    store.save(replace(good, status=Status.CANCELLED, finished="now"))
    broken = {store.create(spec()).id: damage for damage in DAMAGES.values()}
    for job_id in broken:
        store.save(replace(store.get(job_id), status=Status.FAILED))  # an old one
    if when == "while it runs":
        running.append(Supervisor(tmp_path / "jobs", TRUE))
        assert running[0].damaged == {}
    for job_id, damage in broken.items():
        damage(tmp_path / "jobs" / job_id)
    if when == "before the start":
        queued = store.create(spec())
        running.append(Supervisor(tmp_path / "jobs", TRUE))
    else:
        queued = running[0].submit(spec())
    jobs = running[0]
    assert ended(jobs, queued.id) is Status.SUCCEEDED
    assert ended(jobs, jobs.submit(spec()).id) is Status.SUCCEEDED
    assert set(jobs.damaged) == set(broken)
    assert len(jobs.degraded) == len(broken)
    listed = {each.id for each in jobs.list(limit=100)}
    assert good.id in listed
    assert not listed & set(broken)
    for job_id in broken:
        assert not (tmp_path / "jobs" / job_id).exists()
        reason = (tmp_path / "quarantine" / "jobs" / f"{job_id}.reason.txt").read_text()
        assert str(tmp_path / "jobs" / job_id) in reason
        assert ".json" in reason
        assert (tmp_path / "quarantine" / "jobs" / job_id).is_dir()


def test_a_damaged_job_that_cannot_be_moved_stays_and_holds_nobody_up(
    tmp_path: Path, running: list[Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "quarantine", refuse)
    store = JobStore(tmp_path / "jobs")
    broken, queued = store.create(spec()), store.create(spec())
    (tmp_path / "jobs" / broken.id / "state.json").write_text("{")
    running.append(Supervisor(tmp_path / "jobs", TRUE))
    assert ended(running[0], queued.id) is Status.SUCCEEDED
    assert set(running[0].damaged) == {broken.id}
    assert (tmp_path / "jobs" / broken.id).is_dir()


def test_a_job_that_the_disk_does_not_give_now_is_not_put_away(
    tmp_path: Path, running: list[Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files is no damage."""
    store = JobStore(tmp_path / "jobs")
    queued = store.create(spec())
    refusing = [True]
    read = atomic_files.read_json

    def read_json(path: Path) -> Any:
        if refusing:
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return read(path)

    monkeypatch.setattr(job, "read_json", read_json)
    monkeypatch.setattr(runner, "RETRY_S", 0.05)
    store.close()
    (tmp_path / "jobs" / "jobs.sqlite").unlink()  # as an earlier version left it
    running.append(Supervisor(tmp_path / "jobs", TRUE))
    until(lambda: running[0].damaged)
    assert "Too many open files" in running[0].degraded[0]
    refusing.clear()
    assert ended(running[0], queued.id) is Status.SUCCEEDED
    assert running[0].degraded == []


@pytest.mark.parametrize("line", ["{}", "garbage", '{"id": 2, "type": "status", "time": 0}', "[]", '{"id": "x"}', ""])
def test_an_event_that_cannot_be_read_is_passed_over(tmp_path: Path, line: str) -> None:
    EventLog(tmp_path).append("progress", {"done": 1})
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write(line + "\n")
    EventLog(tmp_path).append("progress", {"done": 2})
    assert [(event.id, event.data) for event in EventTail(tmp_path).read()] == [(1, {"done": 1}), (2, {"done": 2})]


def test_a_result_that_cannot_be_read_fails_its_job_only(tmp_path: Path, running: list[Supervisor]) -> None:
    code = "import pathlib, sys; pathlib.Path(sys.argv[1], 'result.json').write_text('{')"
    running.append(Supervisor(tmp_path / "jobs", [sys.executable, "-S", "-c", code]))
    first, second = running[0].submit(spec()), running[0].submit(spec())
    assert ended(running[0], second.id) is Status.FAILED
    assert "result.json" in (running[0].get(first.id).error or "")


def test_a_job_whose_folder_is_removed_while_it_runs_ends_nothing_else(
    tmp_path: Path, running: list[Supervisor]
) -> None:
    running.append(Supervisor(tmp_path / "jobs", [sys.executable, "-S", "-c", WAITS]))
    first, second = running[0].submit(spec()), running[0].submit(spec())
    until(lambda: running[0].get(first.id).pid)
    os.rename(tmp_path / "jobs" / first.id, tmp_path / "elsewhere")
    assert running[0].cancel(first.id).id == first.id, "still known while it runs"
    (tmp_path / "jobs" / second.id / "go").touch()
    assert ended(running[0], second.id) is Status.SUCCEEDED


class Disk:
    """A folder on a disk that can be filled."""

    def __init__(self, path: Path, fill: Callable[[], object], empty: Callable[[], object]) -> None:
        self.path, self.fill, self.empty = path, fill, empty


def tmpfs(path: Path, megabytes: int) -> Disk:
    path.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    done = subprocess.run(options, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {done.stderr.strip()}")
    ballast = path / "ballast"

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            for size in (2**20, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass

    return Disk(path, fill, ballast.unlink)


@pytest.fixture(params=["tmpfs", "refused"])
def full(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A real full disk, where one may be made, and one whose writes are refused by the test."""
    if request.param == "tmpfs":
        yield tmpfs(tmp_path / "disk", 4)
        subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=False)
        return
    refused: list[bool] = []
    sync = atomic_files.sync

    def maybe(path: Path) -> None:
        if refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(path)

    monkeypatch.setattr(atomic_files, "sync", maybe)
    (tmp_path / "disk").mkdir()
    yield Disk(tmp_path / "disk", lambda: refused.append(True), refused.clear)


def test_a_job_that_ends_on_a_full_disk_gets_its_end_later_and_the_next_one_runs(
    full: Disk, running: list[Supervisor]
) -> None:
    jobs = Supervisor(full.path / "jobs", [sys.executable, "-S", "-c", WAITS])
    running.append(jobs)
    first, second = jobs.submit(spec()), jobs.submit(spec())
    until(lambda: jobs.get(first.id).pid)
    full.fill()
    with pytest.raises(OSError, match="No space"):
        jobs.submit(spec())
    (full.path / "jobs" / first.id / "go").touch()
    until(lambda: any("can't be stored" in line for line in jobs.degraded))
    assert (jobs.get(first.id).status, jobs.get(second.id).status) == (Status.RUNNING, Status.QUEUED)
    full.empty()
    assert ended(jobs, first.id) is Status.SUCCEEDED
    (full.path / "jobs" / second.id / "go").touch()
    assert ended(jobs, second.id) is Status.SUCCEEDED
    assert jobs.degraded == []
    assert len(jobs.list()) == 2, "what was refused left nothing"


def test_jobs_start_on_a_full_disk_and_go_on_when_it_has_room(full: Disk, running: list[Supervisor]) -> None:
    store = JobStore(full.path / "jobs")
    left, queued = store.create(spec()), store.create(spec())
    store.save(replace(left, status=Status.RUNNING))
    full.fill()
    jobs = Supervisor(full.path / "jobs", TRUE)
    running.append(jobs)
    until(lambda: jobs.degraded)
    assert jobs.get(queued.id).status is Status.QUEUED
    full.empty()
    assert ended(jobs, queued.id) is Status.SUCCEEDED
    assert ended(jobs, left.id) is Status.SUCCEEDED
    assert jobs.get(left.id).causes == ("attempt 0: server restarted while the job ran",)
    assert jobs.degraded == []


@pytest.mark.slow
def test_the_server_starts_on_a_full_disk_with_damaged_files(tmp_path: Path) -> None:
    """300 MiB, so that with room again it is ready by its own rule."""
    small = tmpfs(tmp_path / "disk", 300)
    try:
        serve_on_a_full_disk(small, small.path / "root")
    finally:
        subprocess.run(["umount", "-l", str(small.path)], check=False)


def serve_on_a_full_disk(small: Disk, root: Path) -> None:
    registry, store = Registry(root / "models"), JobStore(root / "jobs")
    version = adopt(registry, CHECKPOINT)
    for folder in ("episodes/staging", "episodes/episodes"):
        (root / folder).mkdir(parents=True)
    registry.add("cut", CHECKPOINT, CONTRACT)
    (root / "models/versions/cut/lineage.json").write_text('{"parent"')
    (root / "models/versions/stray").mkdir()
    (root / "models/aliases.json").write_text('{"production": {"ver')
    left, broken, queued = (store.create(spec()) for _ in range(3))
    store.save(replace(left, status=Status.RUNNING))
    store.close()
    (root / "jobs" / broken.id / "state.json").write_text("{")
    small.fill()
    with ServeProcess(root, checkpoint=False, log=small.path.parent / "serve.log") as server:
        assert server.wait_until_serving().web.get("/v1/info").json()["policy_version"] == version
        robot = PolicyClient(server.address, "arm-1", patient(30.0))
        assert robot.info().instructions[0] == INSTRUCTION
        assert robot.infer(observe("arm-1")).policy_version == version
        robot.close()
        models, jobs = server.web.get("/v1/models").json(), server.web.get("/v1/jobs").json()
        assert [model["version"] for model in models["data"]] == [version]
        assert {each["name"] for each in models["damaged"]} == {"cut", "stray"}
        assert [each["name"] for each in jobs["damaged"]] == [broken.id]
        assert {each["id"]: each["status"] for each in jobs["data"]} == {left.id: "running", queued.id: "queued"}
        assert server.web.get(f"/v1/jobs/{broken.id}").status_code == 404
        assert server.web.post("/v1/jobs", json={"kind": "sft", "task": "PushCube-v1"}).status_code == 503
        small.empty()
        until(lambda: server.job(left.id)["attempt"] == 1)
        ready = server.web.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        for name in ("cut", "stray", broken.id, "aliases.json"):
            assert any(name in line for line in ready.json()["degraded"]), name
        server.process.terminate()
        assert server.process.wait(patient(60)) == 0

"""Jobs as real processes: success, failure, cancel, shutdown, restart."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from patience import patient, until

from pirl_server.config.jobs import Evaluate, FinetuneSim, Sft, parse_spec
from pirl_server.jobs import events, job_log
from pirl_server.jobs import job as job_files
from pirl_server.jobs.events import Event, EventBlocks, EventLog, EventTail
from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.process import process_start
from pirl_server.jobs.store import JobStore
from pirl_server.jobs.supervisor import Supervisor

JOB = """
import json, os, subprocess, sys, time
from pathlib import Path
from pirl_server.jobs.reporter import Reporter
directory = Path(sys.argv[1])
spec = json.loads((directory / "spec.json").read_text())
with Reporter(directory) as report:
    mode = spec["task"]
    report.progress(0, 3, mode)
    if mode == "good":
        report.metrics(success=0.5, kl=float("nan"))
        report.result({"version": "v2"})
    elif mode == "user":
        raise ValueError("task 'x' is not known\\nsecond line")
    elif mode == "bug":
        {}["missing"]
    elif mode == "crash":
        os.kill(os.getpid(), 9)
    elif mode == "exit":
        sys.exit("wrong turn")
    elif mode in ("polite", "child"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (directory / "child").write_text(str(child.pid))
        while mode == "polite" and not report.cancelled:
            time.sleep(0.01)
        report.result({"saved": True})
    elif mode == "stubborn":
        (directory / "child").write_text(str(os.getpid()))
        while True:
            time.sleep(0.01)
"""


TALKS = """
import sys
print("x" * 99, file=sys.stderr, flush=True)
for number in range(3000):
    print(f"{number:099}", flush=True)
    if number % 500 == 0:
        import time; time.sleep(0.15)
print("the last line", flush=True)
sys.exit(3)
"""


def test_a_jobs_log_is_bounded_and_its_end_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_log, "MAX_LOG_BYTES", 60_000)
    jobs = Supervisor(tmp_path, [sys.executable, "-c", TALKS])
    job = jobs.submit(Sft(task="push"))
    while not jobs.get(job.id).status.ended:
        time.sleep(0.01)
    jobs.close()
    logs = [tmp_path / job.id / name for name in ("log.1.txt", "log.txt")]
    assert logs[0].stat().st_size > 60_000
    assert sum(log.stat().st_size for log in logs) < 300_000, "all of its output"
    assert jobs.get(job.id).error == "the last line"


def test_what_a_job_says_of_its_failure_is_bounded(tmp_path: Path) -> None:
    jobs = Supervisor(
        tmp_path,
        [sys.executable, "-c", "import sys; open(sys.argv[1] + '/error.txt', 'w').write('x' * 10**6); exit(1)"],
    )
    job = jobs.submit(Sft(task="push"))
    while not jobs.get(job.id).status.ended:
        time.sleep(0.01)
    jobs.close()
    assert jobs.get(job.id).error == "x" * 4096


def test_a_follower_holds_one_block_of_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path)
    for number in range(1, 31):
        log.append("progress", {"done": number, "note": "x" * (400 if number == 7 else 1)})
    monkeypatch.setattr(events, "BLOCK_BYTES", 256)
    tail, blocks = EventTail(tmp_path), list[list[int]]()
    while block := tail.read():
        blocks.append([event.id for event in block])
    assert [id for block in blocks for id in block] == list(range(1, 31))
    assert max(map(len, blocks)) < 6
    assert [event.id for event in EventTail(tmp_path, 29).read()] == [30], "however many blocks are before it"
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"id": 31, "type": "progress", "time": 0, "data": {"note": "' + "x" * 300)
    assert tail.read() == []
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('"}}\n')
    assert [event.id for event in tail.read()] == [31]


def test_followers_of_a_growing_log_share_its_blocks_and_miss_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "BLOCK_BYTES", 256)
    monkeypatch.setattr(events, "BLOCKS", 20)
    parsed, parse = list[bytes](), events._event
    monkeypatch.setattr(events, "_event", lambda line: parsed.append(line) or parse(line))
    log, blocks, rng = EventLog(tmp_path), EventBlocks(), random.Random(0)
    afters = [0, 0, 0, 7, 100, 250]
    tails, got = [EventTail(tmp_path, after, blocks) for after in afters], [list[Event]() for _ in afters]
    for _ in range(300):
        log.append("progress", {"done": rng.random(), "note": "x" * rng.choice([1, 20, 300])})
        for number in rng.sample(range(len(tails)), rng.randrange(3)):
            got[number] += tails[number].read()
    for number, tail in enumerate(tails):
        while block := tail.read():
            got[number] += block
    assert [[event.id for event in each] for each in got] == [list(range(after + 1, 301)) for after in afters]
    assert len(blocks._kept) == 20
    line = (tmp_path / "events.jsonl").read_bytes().splitlines()[289]
    for shared, after, times in ((EventBlocks(), 0, {1}), (EventBlocks(), 280, {1, 2}), (None, 0, {3})):
        parsed.clear()
        late, found = [EventTail(tmp_path, after, shared) for _ in range(3)], list[str]()
        while block := [event.json for tail in late for event in tail.read()]:
            found += block[: len(block) // 3]
        assert found == [event.json for event in got[0][after:]]
        assert parsed.count(line) in times
        assert after < 280 or len(parsed) < 900, "blocks without an event for them are passed over"


def test_a_list_reads_no_folder_and_a_look_only_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, reads = JobStore(tmp_path), list[str]()
    jobs = [store.create(Sft(task="push")) for _ in range(3)]
    store.save(replace(jobs[1], status=Status.FAILED))
    read = job_files.read_json
    monkeypatch.setattr(job_files, "read_json", lambda path: reads.append(path.parent.name) or read(path))
    assert [each.id for each in store.list()] == [each.id for each in reversed(jobs)]
    assert [each.id for each in store.list(status=Status.FAILED)] == [jobs[1].id]
    store.take_in()
    assert reads == []
    os.utime(tmp_path / jobs[2].id / "spec.json", (1.0, 1.0))
    store.take_in()
    store.take_in()
    assert reads == [jobs[2].id] * 2, "state and specification, once"
    store.close()
    assert [each.id for each in JobStore(tmp_path).list()] == [each.id for each in reversed(jobs)]
    assert len(reads) == 2


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Supervisor]]:
    running: list[Supervisor] = []

    def make() -> Supervisor:
        running.append(
            Supervisor(
                tmp_path / "jobs", [sys.executable, "-c", JOB], cancel_grace_s=patient(1.0), close_grace_s=patient(1.0)
            )
        )
        return running[-1]

    yield make
    for supervisor in running:
        supervisor.close()


def wait(supervisor: Supervisor, job: Job, *wanted: Status) -> Job:
    while (now := supervisor.get(job.id)).status not in (wanted or tuple(s for s in Status if s.ended)):
        time.sleep(0.01)
    return now


def wait_for_file(path: Path) -> int:
    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    return int(path.read_text())


def spec(mode: str) -> FinetuneSim:
    return FinetuneSim(task=mode)


def test_a_job_has_ended_when_its_last_event_is_written(
    start: Callable[[], Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream of events that stopped between the saved state and the event would never show the end."""
    announce, early = JobStore.announce, list[tuple[bool, bool]]()

    def late(self: JobStore, job: Job) -> None:
        if job.status.ended:
            early.append((self.get(job.id).status.ended, self.has_ended(job.id)))
        announce(self, job)

    monkeypatch.setattr(JobStore, "announce", late)
    supervisor = start()
    job = wait(supervisor, supervisor.submit(spec("good")))
    until(lambda: supervisor.has_ended(job.id))
    assert early == [(True, False)], "saved, not announced"
    assert supervisor.events(job.id).read()[-1].data["status"] == "succeeded"


def test_a_job_reports_and_succeeds(start: Callable[[], Supervisor]) -> None:
    supervisor = start()
    job = wait(supervisor, supervisor.submit(spec("good")))
    assert (job.status, job.error, job.result) == (Status.SUCCEEDED, None, {"version": "v2"})
    assert job.created <= (job.started or "") <= (job.finished or "")
    # A job's state is saved before it is announced: who has heard the end finds it saved.
    while (events := supervisor.events(job.id).read())[-1].data.get("status") != "succeeded":
        time.sleep(0.01)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events] == ["status", "status", "progress", "metrics", "result", "status"]
    assert events[3].data == {"success": 0.5, "kl": None}
    assert [events[i].data["status"] for i in (0, 1, -1)] == ["queued", "running", "succeeded"]
    assert supervisor.events(job.id, after=4).read() == events[4:]


@pytest.mark.parametrize(
    ("mode", "error", "in_log"),
    [
        ("user", "task 'x' is not known", "Traceback"),
        ("bug", "KeyError: 'missing'", "Traceback"),
        ("crash", "its process was killed by signal 9", ""),
        ("exit", "wrong turn", "wrong turn"),
    ],
)
def test_a_failure_is_one_line_and_the_log_has_the_rest(
    start: Callable[[], Supervisor], tmp_path: Path, mode: str, error: str, in_log: str
) -> None:
    supervisor = start()
    job = wait(supervisor, supervisor.submit(spec(mode)))
    assert (job.status, job.error, job.attempt) == (Status.FAILED, error, 3 if mode == "crash" else 1)
    assert in_log in (tmp_path / "jobs" / job.id / "log.txt").read_text()


def test_cancel_lets_a_job_save_and_ends_its_children(start: Callable[[], Supervisor], tmp_path: Path) -> None:
    supervisor = start()
    job = supervisor.submit(spec("polite"))
    child = wait_for_file(tmp_path / "jobs" / job.id / "child")
    assert supervisor.cancel(job.id).status is Status.RUNNING
    job = wait(supervisor, job)
    assert (job.status, job.result) == (Status.CANCELLED, {"saved": True})
    assert process_start(child) is None
    with pytest.raises(ValueError, match="already cancelled"):
        supervisor.cancel(job.id)


def test_a_job_that_ignores_the_signal_is_killed(start: Callable[[], Supervisor], tmp_path: Path) -> None:
    supervisor = start()
    job = supervisor.submit(spec("stubborn"))
    pid = wait_for_file(tmp_path / "jobs" / job.id / "child")
    supervisor.cancel(job.id)
    assert wait(supervisor, job).status is Status.CANCELLED
    assert process_start(pid) is None


def test_what_a_finished_job_leaves_running_is_ended(start: Callable[[], Supervisor], tmp_path: Path) -> None:
    supervisor = start()
    job = wait(supervisor, supervisor.submit(spec("child")))
    assert job.status is Status.SUCCEEDED
    child = wait_for_file(tmp_path / "jobs" / job.id / "child")
    while process_start(child) is not None:  # init reaps it: killed it is already
        time.sleep(0.01)


def test_one_at_a_time_in_order_and_a_queued_one_can_be_cancelled(
    start: Callable[[], Supervisor], tmp_path: Path
) -> None:
    supervisor = start()
    first, second, third = (supervisor.submit(spec(mode)) for mode in ("polite", "good", "good"))
    wait_for_file(tmp_path / "jobs" / first.id / "child")
    assert supervisor.get(second.id).status is Status.QUEUED
    assert supervisor.cancel(second.id).status is Status.CANCELLED
    supervisor.cancel(first.id)
    assert wait(supervisor, third).status is Status.SUCCEEDED
    assert supervisor.get(second.id).started is None
    assert (supervisor.get(third.id).started or "") >= (supervisor.get(first.id).finished or "z")


@pytest.mark.parametrize("mode", ["stubborn", "polite"], ids=["killed", "ends by itself"])
def test_shutdown_stops_the_running_job_which_goes_on_at_the_next_start(
    start: Callable[[], Supervisor], tmp_path: Path, mode: str
) -> None:
    supervisor = start()
    running, queued = supervisor.submit(spec(mode)), supervisor.submit(spec("good"))
    pid = wait_for_file(tmp_path / "jobs" / running.id / "child")
    supervisor.close()
    assert process_start(pid) is None
    stopped = supervisor.get(running.id)
    assert (stopped.status, stopped.causes) == (Status.QUEUED, ("attempt 1: the server was stopped",))
    with pytest.raises(RuntimeError, match="stopping"):
        supervisor.submit(spec("good"))
    assert supervisor.get(queued.id).status is Status.QUEUED
    (tmp_path / "jobs" / running.id / "child").unlink()
    supervisor = start()
    assert process_start(wait_for_file(tmp_path / "jobs" / running.id / "child")) is not None
    assert supervisor.get(running.id).attempt == 2
    supervisor.cancel(running.id)
    assert wait(supervisor, running).status is Status.CANCELLED
    assert wait(supervisor, queued).status is Status.SUCCEEDED


@pytest.mark.parametrize("alive", [True, False])
def test_a_job_that_was_running_when_the_server_died_is_tried_again(
    start: Callable[[], Supervisor], tmp_path: Path, alive: bool
) -> None:
    """Its process is ended if it still is that very process; a stranger with the same pid is left alone."""
    store = JobStore(tmp_path / "jobs")
    job, last = store.create(spec("good")), store.create(replace(spec("good"), retries=0))
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    began = process_start(sleeper.pid)
    assert began is not None
    for each in (job, last):
        assert store.claim() is not None
        store.edit(each.id, pid=sleeper.pid, process_started=began if alive else began - 1)
    supervisor = start()
    if alive:
        assert sleeper.wait(patient(30)) == -signal.SIGKILL
    found = wait(supervisor, job)
    assert (found.status, found.attempt) == (Status.SUCCEEDED, 2)
    assert found.causes == ("attempt 1: server restarted while the job ran",)
    found = wait(supervisor, last)
    assert (found.status, found.error) == (Status.FAILED, "server restarted while the job ran")
    if not alive:
        assert sleeper.poll() is None
        sleeper.kill()
        sleeper.wait()


def test_a_command_that_cannot_start_fails_the_job(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path / "jobs", ["/no/such/program"])
    job = wait(supervisor, supervisor.submit(spec("good")))
    supervisor.close()
    assert job.status is Status.FAILED
    assert "/no/such/program" in (job.error or "")


def test_pages_go_from_new_to_old(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    made = [store.create(spec("good")) for _ in range(5)]
    assert [job.id for job in store.list(limit=3)] == [job.id for job in made[:1:-1]]
    assert [job.id for job in store.list(after=made[2].id)] == [made[1].id, made[0].id]
    assert store.list(status=Status.RUNNING) == []
    for unknown in ("job_" + "0" * 24, "../jobs", "job_x", ""):
        with pytest.raises(KeyError):
            store.get(unknown)


def test_a_torn_last_event_is_unseen_and_removed(tmp_path: Path) -> None:
    EventLog(tmp_path).append("progress", {"done": 1})
    path = tmp_path / "events.jsonl"
    with path.open("a") as file:
        file.write('{"id": 2, "type": "met')
    tail = EventTail(tmp_path)
    assert [event.id for event in tail.read()] == [1]
    EventLog(tmp_path).append("progress", {"done": 2})
    assert [json.loads(line)["data"] for line in path.read_text().splitlines()] == [{"done": 1}, {"done": 2}]
    assert [(event.id, event.data["done"]) for event in EventTail(tmp_path).read()] == [(1, 1), (2, 2)]


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ({"kind": "sft", "task": "push", "sead": 1}, "'sead' is not known; did you mean seed?"),
        ({"kind": "dance", "task": "push"}, "dance"),
        ({"kind": "evaluate", "task": "../x"}, "'task' must"),
        ({"kind": "evaluate", "task": "push", "episodes": 0, "seed": -1}, "; "),
        ("text", "job"),
        ({}, "job"),
    ],
)
def test_a_wrong_spec_is_refused_in_one_line(raw: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_spec(raw)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_are_filled_in_and_survive_the_disk(tmp_path: Path) -> None:
    store = JobStore(tmp_path)
    first = store.create(spec("good")).id
    for made in (Sft(task="push", after=(first,), priority=-3), Evaluate(task="push"), spec("good")):
        assert store.get(store.create(made).id).spec == made
    assert parse_spec({"kind": "finetune_sim", "task": "push"}) == FinetuneSim(task="push", base="production", seed=0)
    assert not any(os.path.islink(path) for path in tmp_path.rglob("*"))


ORPHAN = """
import sys, time
from pathlib import Path
print("up", file=sys.stderr, flush=True)
time.sleep(float(sys.argv[2]))
from pirl_server.jobs.reporter import Reporter
with Reporter(Path(sys.argv[1])):
    time.sleep(600)
"""
SERVER = """
import sys, time
from pathlib import Path
from pirl_server.jobs.process import JobProcess
log = Path(sys.argv[2], "log.txt")
job = JobProcess([sys.executable, "-c", *sys.argv[1:]], log)
while "up" not in log.read_text():
    time.sleep(0.01)
print(job.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("importing_s", [0.0, 1.0])
def test_a_job_ends_with_the_server_that_started_it(tmp_path: Path, importing_s: float) -> None:
    """Also when the server is killed, so that it can't tell anyone, and while the job was still importing."""
    command = [sys.executable, "-c", SERVER, ORPHAN, str(tmp_path), str(importing_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert process_start(pid) is not None
        server.kill()
    until(lambda: process_start(pid) is None, "the job lives on")

"""The queue without processes: order, keys, dependencies, fenced claims, and a database that is gone or damaged."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pirl_server.config.jobs import Evaluate, Sft
from pirl_server.config.loop import Loop
from pirl_server.jobs import store as store_module
from pirl_server.jobs.job import FencedError, Job, KeyInUseError, Status
from pirl_server.jobs.plan import plan
from pirl_server.jobs.store import JobStore
from pirl_server.jobs.verdict import AGAIN, CANCEL, CLOSE, PAUSE, verdict

SPEC = Evaluate(task="push")


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(tmp_path / "jobs")


def claims(store: JobStore) -> list[str]:
    found = []
    while (job := store.claim()) is not None:
        found.append(job.id)
    return found


def test_the_higher_priority_goes_first_and_among_equals_the_older(store: JobStore) -> None:
    made = [store.create(replace(SPEC, priority=priority)).id for priority in (0, 5, -1, 5, 0)]
    store.create(Loop(task="push", priority=9))  # which no runner takes
    assert claims(store) == [made[index] for index in (1, 3, 0, 4, 2)]


def test_a_job_waits_for_all_that_it_follows(store: JobStore) -> None:
    first, second = store.create(SPEC), store.create(replace(SPEC, seed=1))
    gate = store.create(replace(SPEC, seed=2, priority=100, after=(first.id, second.id)))
    assert claims(store) == [first.id, second.id]
    store.edit(first.id, status=Status.SUCCEEDED)
    assert (claims(store), store.hopeless()) == ([], None)
    store.edit(second.id, status=Status.SUCCEEDED)
    assert claims(store) == [gate.id]


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_what_can_not_start_any_more_is_named_with_the_reason(store: JobStore, status: Status) -> None:
    first = store.create(SPEC)
    gate = store.create(replace(SPEC, after=(first.id,)))
    store.edit(first.id, status=status)
    assert store.hopeless() == (gate.id, f"{first.id}, which it was to follow, is {status.value}")
    with pytest.raises(ValueError, match=r"there is no job job_0{24}"):
        store.create(replace(SPEC, after=("job_" + 24 * "0",)))
    assert len(store.list()) == 2


def test_a_key_is_one_job_and_rejects_another_request(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.of_key(SPEC, "k") is None
    job, new = store.create_once(SPEC, "k")
    assert new
    assert store.of_key(SPEC, "k") == job
    assert store.create_once(SPEC, "k") == (job, False)
    monkeypatch.setattr(time, "time_ns", lambda: 1)  # the clock was set back
    assert store.create_once(SPEC, "k") == (job, False)
    other, new = store.create_once(SPEC, "other")
    assert (new, other.id > job.id) == (True, True)
    for ask in (store.create_once, store.of_key):
        with pytest.raises(KeyInUseError, match=job.id):
            ask(replace(SPEC, seed=1), "k")
    store.close()
    (tmp_path / "jobs" / "jobs.sqlite").unlink()
    assert JobStore(tmp_path / "jobs").create_once(SPEC, "k") == (job, False), "the folder has it too"


def test_posts_at_once_with_one_key_are_one_job_in_several_processes(store: JobStore, tmp_path: Path) -> None:
    """Each store is what a process has: connections of their own."""
    stores, found = [JobStore(tmp_path / "jobs") for _ in range(4)], list[tuple[str, bool]]()

    def post(each: JobStore) -> None:
        job, new = each.create_once(SPEC, "k")
        found.append((job.id, new))

    threads = [threading.Thread(target=post, args=(each,)) for each in stores]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(new for _, new in found) == [False, False, False, True]
    assert len({id_ for id_, _ in found}) == len(store.list()) == 1


def test_an_older_claim_changes_nothing(store: JobStore) -> None:
    store.create(SPEC)
    old = store.claim()
    assert old is not None
    store.save(replace(old, status=Status.QUEUED))
    new = store.claim()
    assert new is not None
    assert (old.token, old.attempt) < (new.token, new.attempt)
    with pytest.raises(FencedError):
        store.save(replace(old, status=Status.FAILED), fenced=True)
    assert store.get(new.id).status is Status.RUNNING
    assert store.save(replace(new, status=Status.SUCCEEDED), fenced=True).status is Status.SUCCEEDED


@pytest.mark.parametrize(("what", "status"), [(CANCEL, Status.CANCELLED), (PAUSE, Status.PAUSED)])
def test_a_request_that_comes_while_a_job_is_put_back_is_not_lost(store: JobStore, what: str, status: Status) -> None:
    store.create(SPEC)
    running = store.claim()
    assert running is not None
    store.want(running.id, what)
    store.save(replace(running, pid=3), fenced=True)
    assert store.wanted(running.id) == what, "the runner may store its process meanwhile"
    assert store.save(replace(running, status=Status.QUEUED), fenced=True).status is status
    assert store.wanted(running.id) is None


def test_a_pause_that_follows_a_cancel_does_not_keep_the_job(store: JobStore) -> None:
    store.create(SPEC)
    running = store.claim()
    assert running is not None
    for what in (PAUSE, CANCEL, PAUSE):
        store.want(running.id, what)
    assert store.wanted(running.id) == CANCEL
    assert store.save(replace(running, status=Status.QUEUED), fenced=True).status is Status.CANCELLED


def test_a_clock_that_is_set_back_keeps_the_order(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [store.create(SPEC).id for _ in range(2)]
    hour_ago = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(store_module.time, "time_ns", lambda: hour_ago)
    after = [store.create(SPEC).id for _ in range(2)]
    assert sorted(before + after) == before + after
    assert claims(store) == before + after


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scramble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [Path.unlink, cut, scramble, lambda path: path.write_bytes(b"no database at all" * 300)],
    ids=["gone", "cut", "scrambled", "another file"],
)  # fmt: skip
def test_a_damaged_database_is_rebuilt_from_the_folders(
    store: JobStore, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    running, done = store.create(SPEC, parent="p"), store.create(SPEC)
    claimed = store.claim()
    assert claimed is not None
    assert claimed.id == running.id
    store.edit(done.id, status=Status.SUCCEEDED, result={"rate": 0.5})
    before = store.list()
    store.close()
    damage(tmp_path / "jobs" / "jobs.sqlite")
    again = JobStore(tmp_path / "jobs")
    assert again.list() == before
    again.save(replace(claimed, status=Status.QUEUED), fenced=True)
    new = again.claim()
    assert new is not None
    assert new.token > claimed.token, "older claims stay fenced"
    put_away = [path.name for path in (tmp_path / "quarantine" / "jobs").glob("jobs.sqlite*")]
    assert bool(put_away) is (damage is not Path.unlink)


def test_another_process_notices_a_replaced_database(store: JobStore, tmp_path: Path) -> None:
    job, other = store.create(SPEC), JobStore(tmp_path / "jobs")
    assert other.get(job.id).id == job.id
    (tmp_path / "jobs" / "jobs.sqlite").rename(tmp_path / "elsewhere")
    new = other.create(SPEC)
    assert store.get(new.id).id == new.id
    store.edit(new.id, status=Status.FAILED)
    assert other.get(new.id).status is Status.FAILED


def test_what_a_crash_wrote_to_the_folder_only_is_taken_in(store: JobStore, tmp_path: Path) -> None:
    """And a state that is behind the row is not."""
    ahead, behind = store.create(SPEC), store.create(SPEC)
    old = (tmp_path / "jobs" / behind.id / "state.json").read_text()
    store.edit(behind.id, status=Status.SUCCEEDED)
    (tmp_path / "jobs" / behind.id / "state.json").write_text(old)
    path = tmp_path / "jobs" / ahead.id / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps(state | {"status": "failed", "revision": state["revision"] + 1}))
    store.take_in()
    assert (store.get(ahead.id).status, store.get(behind.id).status) == (Status.FAILED, Status.SUCCEEDED)


def test_a_page_of_ten_thousand_jobs_is_one_question_to_an_index(store: JobStore) -> None:
    for _ in range(30):
        store.create(SPEC)
    for where, key in (("id < 'x'", "PRIMARY KEY"), ("id < 'x' AND status = 'failed'", "(status=? AND id<?)")):
        sql = f"EXPLAIN QUERY PLAN SELECT id, spec, state FROM jobs WHERE {where} ORDER BY id DESC"
        (plan,) = store._data.read(sql)
        assert key in plan[3], "no other row is read, and nothing is sorted"
    assert store.counts() == {Status.QUEUED: 30}
    assert [job.id for job in store.list(limit=3)] == sorted((job.id for job in store.list(limit=99)), reverse=True)[:3]


def test_a_locked_database_is_an_error_of_the_disk_and_harms_nothing(
    store: JobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pirl_server.jobs.database.WAIT_S", 0.05)
    job = store.create(SPEC)
    store.close()
    holder = sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(OSError, match="locked"):
        store.create(SPEC)
    assert [each.id for each in store.list()] == [job.id]
    holder.execute("ROLLBACK")
    assert len([store.create(SPEC), *store.list()]) == 3


RUNNING = Job("job_" + 24 * "0", replace(Sft(task="push"), retries=2), Status.RUNNING, "now", attempt=4, checkpoint="a")


@pytest.mark.parametrize(
    ("code", "stopped", "mark", "crashes", "status", "counted"),
    [
        (0, None, "a", 0, Status.SUCCEEDED, 0),
        (1, None, "b", 0, Status.FAILED, 0),
        (-9, None, "a", 0, Status.QUEUED, 1),
        (AGAIN, None, "a", 1, Status.QUEUED, 2),
        (-9, None, "a", 2, Status.FAILED, 3),
        (-9, None, "b", 2, Status.QUEUED, 1),
        (AGAIN, PAUSE, "b", 2, Status.PAUSED, 0),
        (-9, PAUSE, "a", 2, Status.PAUSED, 0),
        (0, PAUSE, "a", 0, Status.SUCCEEDED, 0),
        (-9, CLOSE, "a", 2, Status.QUEUED, 0),
        (1, CLOSE, "a", 0, Status.FAILED, 0),
        (0, CANCEL, "a", 0, Status.CANCELLED, 0),
        (-9, CANCEL, "a", 2, Status.CANCELLED, 2),
    ],
)
def test_how_an_attempt_ended_decides_what_follows(
    code: int, stopped: str | None, mark: str, crashes: int, status: Status, counted: int
) -> None:
    """A crash is tried again until `retries` of them made no new checkpoint; a request's own fault is not."""
    found = verdict(replace(RUNNING, crashes=crashes), code, "why", stopped, mark)
    assert (found.status, found.crashes) == (status, counted)
    assert found.causes == (
        () if status is not Status.QUEUED else (f"attempt 4: {'why' if stopped is None else 'the server was stopped'}",)
    )
    assert (found.finished is not None) is status.ended


def test_a_plan_says_what_a_job_would_do_and_measures_earlier_ones(store: JobStore) -> None:
    """In proportion to their amount; only those of the same kind and task that ended in one attempt."""
    times = {"started": "2026-01-01T00:00:00.000+00:00", "status": Status.SUCCEEDED, "attempt": 1}
    for episodes, task, attempt, seconds in (
        (10, "push", 1, 20),
        (50, "push", 1, 50),
        (10, "push", 2, 59),
        (10, "x", 1, 59),
    ):
        job = store.create(replace(SPEC, task=task, episodes=episodes))
        finished = f"2026-01-01T00:00:{seconds}.000+00:00"
        store.edit(job.id, **times | {"attempt": attempt, "finished": finished})
    store.create(replace(SPEC, priority=-1))
    store.create(SPEC)
    asked = replace(SPEC, episodes=100, after=(job.id,))
    found = plan(asked, store.ahead(0), store.succeeded("evaluate", 20))
    assert (found.amount, found.unit, found.waits_for) == (100, "episodes", 1)
    assert (found.estimated_s, found.measured_on) == (150.0, 2), "the median of 2 and 1 s an episode"
    assert found.lines[0] == "production on the initial states 0 to 99 of list 0 of push"
    assert job.id in found.lines[1]
    assert plan(Sft(task="push"), 0, []).estimated_s is None
    assert plan(Loop(task="push"), 0, []).unit == "rounds"

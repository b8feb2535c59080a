"""SIGKILL at random moments for the server of jobs, their runner, a trainer or its reaper, while jobs are submitted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from toy_server import DEVICES
from toy_trainer import VIOLATION, undisturbed

from pirl_server.jobs.job import Job, Status
from pirl_server.jobs.store import JobStore
from pirl_server.paths import JOBS

MARK = "PIRL_CRASH_JOBS"
POLL_S = 0.02
LIMIT_S = 600.0
"""without any progress"""
WAITING = 3
"""jobs that are kept in the queue"""


@dataclass
class Kills:
    """What was found."""

    kills: int = 0
    of: dict[str, int] = field(default_factory=dict)
    """of each kind of process"""
    submitted: int = 0
    """acknowledged"""
    submitted_again: int = 0
    """whose acknowledgement was cut off: with the same key to the next server"""
    lost: int = 0
    """acknowledged jobs that are not there or have not succeeded"""
    doubled: int = 0
    """jobs that a key has beyond one"""
    different: int = 0
    """jobs whose result is not, bit for bit, that of a run which was left alone"""
    orphans: int = 0
    """processes that lived on 5 s after their server"""
    slowest_end_s: float = 0.0
    """until all processes of a killed server were gone"""
    two_on_a_device: int = 0
    attempts: int = 0
    """of all jobs"""
    continued: int = 0
    """jobs of more than one attempt"""
    wall_s: float = 0.0

    @property
    def faults(self) -> int:
        """All that must not be."""
        return self.lost + self.doubled + self.different + self.orphans + self.two_on_a_device


class Site:
    """A root and the server that is on it now."""

    def __init__(self, root: Path) -> None:
        self.root, self.mark = root, uuid.uuid4().hex
        root.mkdir(parents=True)
        self.store = JobStore(root / JOBS)
        self.start()

    def start(self) -> None:
        """Start a server; returns when it takes jobs."""
        command = [sys.executable, str(Path(__file__).with_name("toy_server.py")), str(self.root)]
        self.server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {MARK: self.mark}
        )
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == "ready\n"

    def send(self, seed: int, key: str) -> None:
        """Submit a job."""
        assert self.server.stdin is not None
        with suppress(OSError):
            self.server.stdin.write(f"{seed} {key}\n")
            self.server.stdin.flush()

    def receive(self) -> str:
        """Return the id of a job that was submitted; empty when the server was killed before it said so."""
        assert self.server.stdout is not None
        line = self.server.stdout.readline()
        return line.strip() if line.endswith("\n") else ""

    def end(self) -> tuple[int, float]:
        """SIGKILL the server; return how many of its processes outlived it by 5 s, and when the last was gone."""
        self.server.kill()
        self.server.wait()
        began = time.monotonic()
        while (left := marked(self.mark)) and time.monotonic() - began < 5.0:
            time.sleep(POLL_S)
        took = time.monotonic() - began
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(left), took

    def close(self) -> None:
        """Stop the server, and return when it has."""
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()
        self.store.close()


def marked(mark: str) -> set[int]:
    """Live processes that were started with this in their environment."""
    found, words = set(), f"{MARK}={mark}".encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if words in Path(f"/proc/{name}/environ").read_bytes().split(b"\0") and _lives(int(name)):
                found.add(int(name))
        except OSError:
            continue  # it ended meanwhile
    return found


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"


def children(pid: int) -> list[int]:
    """Of a process, those that live, by whichever of its threads."""
    found = list[int]()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def kills(root: Path, count: int, server: bool, seed: int = 0) -> Kills:
    """Kill the server `count` times, or parts of what it started; then let all jobs end, and compare."""
    rng, found, site, began = random.Random(seed), Kills(), Site(root), time.monotonic()
    jobs: dict[str, int] = {}
    while found.kills < count:
        _fill(site, rng, jobs, found, cut=server and rng.random() < 0.3)
        _pause(site, rng)
        if server:
            left, took = site.end()
            found.orphans, found.slowest_end_s = found.orphans + left, max(found.slowest_end_s, took)
            found.kills, found.of = found.kills + 1, {"server": found.kills + 1}
            site.start()
        elif (what := _kill_part(site, rng)) is not None:
            found.kills, found.of[what] = found.kills + 1, found.of.get(what, 0) + 1
    _wait_ended(site)
    site.close()
    _compare(site, jobs, found)
    found.wall_s = time.monotonic() - began
    return found


def _fill(site: Site, rng: random.Random, jobs: dict[str, int], found: Kills, cut: bool) -> None:
    """Keep jobs waiting. `cut`: kill the server between a submission and its acknowledgement, then send it again."""
    while (counts := site.store.counts())[Status.QUEUED] + counts[Status.RUNNING] < WAITING:
        seed, key = rng.randrange(1000), uuid.uuid4().hex
        site.send(seed, key)
        if cut:
            time.sleep(rng.random() * 0.05)
            left, took = site.end()
            found.orphans, found.slowest_end_s = found.orphans + left, max(found.slowest_end_s, took)
            site.start()
            found.submitted_again += 1
            site.send(seed, key)
            cut = False
        job_id = site.receive()
        assert job_id, "the server ended by itself"
        jobs[job_id] = seed
        found.submitted += 1
        site.send(seed, key)  # a second time: the same job
        found.doubled += site.receive() != job_id


def _running(site: Site) -> list[Job]:
    return [job for job in site.store.running(loops=False) if job.pid is not None and children(job.pid)]


def _pause(site: Site, rng: random.Random) -> None:
    """Wait for a random moment: at any time, or within the first checkpoints of an attempt."""
    if rng.random() < 0.25:
        time.sleep(rng.random() * 2.0)
        return
    before = {job.id: _mark(site, job) for job in site.store.running(loops=False)}
    began = time.monotonic()
    while time.monotonic() - began < LIMIT_S:
        running = site.store.running(loops=False)
        if any(_mark(site, job) != before.get(job.id, "") for job in running) or (before and not running):
            break
        time.sleep(POLL_S)
    time.sleep(rng.random() * 0.5)


def _mark(site: Site, job: Job) -> str:
    with suppress(OSError):
        return str(os.stat(site.store.path(job.id) / "resume" / "state.json").st_mtime_ns)
    return ""


def _kill_part(site: Site, rng: random.Random) -> str | None:
    """Kill a trainer, more rarely its reaper or the runner of all; return which; None: nothing runs."""
    running = _running(site)
    what = rng.choice(["trainer"] * 6 + ["reaper", "runner"])
    if what == "runner":
        reapers = children(site.server.pid)
        pids = [pid for reaper in reapers for pid in children(reaper)]
    elif not running:
        return None
    else:
        reaper = rng.choice(running).pid
        assert reaper is not None
        pids = [reaper] if what == "reaper" else children(reaper)
    if not pids:
        return None
    with suppress(ProcessLookupError):
        os.kill(rng.choice(pids), signal.SIGKILL)
        return what
    return None


def _wait_ended(site: Site) -> None:
    last, since = None, time.monotonic()
    while True:
        now = site.store.counts()
        if not any(count for status, count in now.items() if not status.ended):
            return
        if now != last:
            last, since = now, time.monotonic()
        assert time.monotonic() - since < LIMIT_S, f"nothing changes any more: {now}"
        time.sleep(0.1)


def _compare(site: Site, jobs: dict[str, int], found: Kills) -> None:
    there = {job.id: job for job in site.store.list(limit=10**6)}
    found.doubled += len(there.keys() - jobs.keys())
    for job_id, seed in jobs.items():
        job = there.get(job_id)
        if job is None or job.status is not Status.SUCCEEDED or job.result is None:
            found.lost += 1
            continue
        found.different += job.result["digest"] != undisturbed(seed)
        found.attempts, found.continued = found.attempts + job.attempt, found.continued + (job.attempt > 1)
    found.two_on_a_device += (site.root / VIOLATION).exists()
    assert all(job.device in DEVICES for job in there.values())

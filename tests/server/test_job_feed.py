"""Many who follow one job: each gets every event once, and the file is read once for all of them."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from pirl_server.api import job_feed
from pirl_server.api.job_feed import JobFeeds
from pirl_server.api.reads import Reads
from pirl_server.api.sse import Followed, stream
from pirl_server.jobs import events
from pirl_server.jobs.events import EventBlocks, EventLog, EventTail

COUNT = 400


class Job:
    """A log that grows, and how often it was looked at."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.over, self.looks = folder, EventLog(folder), False, 0
        self._blocks = EventBlocks()

    def followed(self) -> Followed:
        return Followed("job", lambda after: EventTail(self.folder, after, self._blocks), self.ended)

    def ended(self) -> bool:
        self.looks += 1
        return self.over


async def follow(job: Job, reads: Reads, feeds: JobFeeds, after: int, pauses: Any) -> str:
    text = ""
    async for piece in stream(job.followed(), after, 0.05, reads, feeds):
        text += piece
        await asyncio.sleep(pauses())
    return text


def ids(text: str) -> list[int]:
    return [int(line[4:]) for line in text.splitlines() if line.startswith("id: ")]


def test_each_follower_gets_every_event_once_whenever_it_comes_and_however_slow_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_feed, "KEPT_CHARACTERS", 2_000)  # slow ones fall behind
    monkeypatch.setattr(job_feed, "POLL_S", 0.005)
    rng, job = random.Random(0), Job(tmp_path)

    async def write() -> None:
        for number in range(COUNT):
            job.log.append("metrics", {"step": number, "note": "x" * rng.randrange(200)})
            await asyncio.sleep(rng.choice((0, 0, 0.003)))
        job.over = True

    async def late(delay: float, after: int, reads: Reads, feeds: JobFeeds, pause: float) -> str:
        await asyncio.sleep(delay)
        return await follow(job, reads, feeds, after, lambda: rng.random() * pause)

    async def run() -> list[str]:
        reads, feeds = Reads(), JobFeeds()
        starts = [(rng.random() * 0.8, rng.choice((0, 0, 7)), rng.choice((0.0, 0.002, 0.1))) for _ in range(20)]
        everyone = [late(delay, after, reads, feeds, pause) for delay, after, pause in starts]
        _, *texts = await asyncio.gather(write(), *everyone)
        assert feeds._open == {}
        for text, (_, after, _) in zip(texts, starts):
            assert ids(text) == list(range(after + 1, COUNT + 1))
        return texts

    asyncio.run(run())


def test_the_file_is_looked_at_no_more_often_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_feed, "POLL_S", 0.01)

    async def looks(followers: int, folder: Path) -> int:
        folder.mkdir()
        job, reads, feeds = Job(folder), Reads(), JobFeeds()
        tasks = [asyncio.create_task(follow(job, reads, feeds, 0, lambda: 0)) for _ in range(followers)]
        while not feeds._open or feeds._open["job"].followers < followers:
            await asyncio.sleep(0.001)
        before = job.looks
        for number in range(30):
            job.log.append("metrics", {"step": number})
            while feeds._open["job"].since(0)[1] <= number:
                await asyncio.sleep(0.001)
        found, job.over = job.looks - before, True
        assert {tuple(ids(text)) for text in await asyncio.gather(*tasks)} == {tuple(range(1, 31))}
        return found

    one, many = asyncio.run(looks(1, tmp_path / "one")), asyncio.run(looks(40, tmp_path / "many"))
    assert 30 <= one < 120
    assert 30 <= many < 120, "forty times as many before"


def test_an_error_of_the_file_ends_the_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_feed, "POLL_S", 0.005)

    async def run() -> list[str]:
        job, reads, feeds = Job(tmp_path), Reads(), JobFeeds()
        tasks = [asyncio.create_task(follow(job, reads, feeds, 0, lambda: 0)) for _ in range(3)]
        while not feeds._open or feeds._open["job"].followers < 3:
            await asyncio.sleep(0.001)
        monkeypatch.setattr(EventTail, "read", lambda self: 1 / 0)
        return await asyncio.wait_for(asyncio.gather(*tasks), 60)

    assert len(asyncio.run(run())) == 3


def test_who_resumes_late_reads_on_where_another_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log of hundreds of blocks is passed over once, not by each of those who were cut off."""
    monkeypatch.setattr(events, "BLOCK_BYTES", 256)
    looked, block = list[int](), events._block
    monkeypatch.setattr(events, "_block", lambda path, offset: looked.append(offset) or block(path, offset))
    log, blocks, random_ = EventLog(tmp_path), EventBlocks(), random.Random(1)
    for number in range(1, 501):
        log.append("progress", {"done": number, "note": "x" * random_.choice([1, 30, 600])})
    assert [event.id for event in EventTail(tmp_path, 499, blocks).read()] == [500]
    assert len(looked) > 100
    for after in (0, 1, 250, 498, 499, 500, 900):
        looked.clear()
        tail, ids = EventTail(tmp_path, after, blocks), list[int]()
        first = [event.id for event in tail.read()]
        assert len(looked) <= 2, "the block, and one that a long event fills"
        ids += first
        while block_ := tail.read():
            ids += [event.id for event in block_]
        assert ids == list(range(after + 1, 501))
    log.append("progress", {"done": 501})
    assert [event.id for event in EventTail(tmp_path, 500, blocks).read()] == [501], "the last block has grown"
    known, follower = len(blocks._ends[tmp_path / "events.jsonl"]), EventTail(tmp_path, 501, blocks)
    for number in range(502, 702):
        log.append("progress", {"done": number})
        assert [event.id for event in follower.read()] == [number]
    assert len(blocks._ends[tmp_path / "events.jsonl"]) - known < 100, "what is kept does not grow with each event"

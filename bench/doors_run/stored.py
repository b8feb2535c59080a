"""What a server that has run for long finds below its root: many episodes, and a job with many events."""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict
from pathlib import Path

from pirl_server.config.jobs import Sft
from pirl_server.episodes import manifest
from pirl_server.episodes.summary import GROUP, EpisodeSummary
from pirl_server.jobs.events import NAME as EVENTS
from pirl_server.jobs.store import JobStore
from pirl_server.paths import EPISODES, JOBS


def publish(root: Path, count: int) -> None:
    """Write that many episodes: real manifests, each over an empty file of arrays."""
    for number in range(count):
        id_, robot = uuid.uuid4().hex, f"arm-{number % 8}"
        home = root / EPISODES / "episodes" / robot / id_
        home.mkdir(parents=True)
        (home / GROUP).touch()
        path = f"episodes/{robot}/{id_}/{GROUP}"
        summary = EpisodeSummary(
            id_, robot, f"2026-01-01T{number:06}", "push", number % 2 == 0, "sim", "time_limit", "ode", "0" * 16,
            ("3f9c1d20a7b4",), 3, 9, path,
        )  # fmt: skip
        manifest.write(home, asdict(summary))


def old_job(root: Path, events: int) -> str:
    """Write a queued job that is not in the queue of a running server, with that many events; return its id."""
    job = JobStore(root / JOBS).create(Sft(task="PushCube-v1"))
    lines = (
        json.dumps({"id": number, "type": "metrics", "time": 0.0, "data": {"loss": 1.0}}) for number in range(1, events)
    )
    (root / JOBS / job.id / EVENTS).write_text("\n".join(lines) + "\n")
    return job.id

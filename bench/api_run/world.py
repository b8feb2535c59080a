"""What the server of the benchmark finds below its root: many jobs, many episodes, and one with images."""

from __future__ import annotations

import dataclasses
import json
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "doors_run"))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from stored import publish
from test_docs import episode

from pirl_server.config.jobs import Sft
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES, JOBS

BEGIN_NS = 1_767_225_600 * 10**9
STATUSES = ("succeeded", "failed", "cancelled")


def past_jobs(root: Path, count: int, paused: int = 0) -> list[str]:
    """Write jobs that have ended, then some that wait, as the server stores them; return their ids, oldest first."""
    spec = json.dumps(dataclasses.asdict(Sft(task="PushCube-v1")))
    ids = []
    for number in range(count + paused):
        id_ = f"job_{BEGIN_NS + number * 10**9:016x}{number:08x}"
        folder = root / JOBS / id_
        folder.mkdir(parents=True)
        status = STATUSES[number % 3] if number < count else "paused"
        state = {
            "status": status, "created": f"2026-01-01T00:00:{number % 60:02}+00:00", "started": None,
            "finished": None, "pid": None, "process_started": None, "error": None, "result": None, "parent": None,
        }  # fmt: skip
        (folder / "spec.json").write_text(spec)
        (folder / "state.json").write_text(json.dumps(state))
        (folder / "events.jsonl").touch()
        ids.append(id_)
    return ids


def past_episodes(root: Path, count: int) -> str:
    """Write many without data, and one with: return its id."""
    publish(root, count - 1)
    made = episode()
    info = dataclasses.replace(
        made.info, id=uuid.uuid4().hex, robot_id="arm-1", created="2026-12-01T00:00:00.000+00:00"
    )
    return EpisodeStore(root / EPISODES).write(dataclasses.replace(made, info=info)).id

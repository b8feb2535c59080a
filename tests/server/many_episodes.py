"""Published episodes without data: real manifests over one small file each, made in a tenth of a millisecond."""

from __future__ import annotations

import random
import uuid
from dataclasses import asdict, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

from pirl_server.episodes import manifest
from pirl_server.episodes.summary import GROUP, EpisodeSummary

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
INSTRUCTIONS = ("push the cube", "wipe the Table", "close the drawer")
VERSIONS = (("v1",), ("v2",), ("v1", "v2"), ("v3",))


def summary(number: int, rng: random.Random) -> EpisodeSummary:
    """Any summary; `number` minutes after the first."""
    id_, robot = f"{rng.getrandbits(128):032x}", f"arm-{rng.randrange(3)}"
    success = rng.choice((True, False, None))
    return EpisodeSummary(
        id_, robot, (BEGIN + timedelta(minutes=number)).isoformat(timespec="milliseconds"), rng.choice(INSTRUCTIONS),
        success, "" if success is None else rng.choice(("sim", "operator")), "time_limit",
        rng.choice(("ode", "flow_sde")), rng.choice(("0" * 16, "1" * 16)), rng.choice(VERSIONS), 3, 9,
        f"episodes/{robot}/{id_}/{GROUP}", rng.random() < 0.1, 9, rng.choice((0, 0, 4)),
    )  # fmt: skip


def publish(root: Path, said: EpisodeSummary) -> EpisodeSummary:
    """Write its folder, as another program would: the index is not notified."""
    home = (root / said.path).parent
    home.mkdir(parents=True)
    (home / GROUP).write_bytes(b"data")
    manifest.write(home, asdict(said))
    return said


def many(root: Path, count: int, seed: int = 0) -> list[EpisodeSummary]:
    """Publish so many, newest first."""
    rng = random.Random(seed)
    return [publish(root, summary(number, rng)) for number in range(count)][::-1]


def older(said: EpisodeSummary) -> EpisodeSummary:
    """A new episode that was recorded before another one, as an imported one is."""
    id_ = uuid.uuid4().hex
    created = datetime.fromisoformat(said.created) - timedelta(seconds=1)
    return replace(said, id=id_, created=created.isoformat(), path=f"episodes/{said.robot_id}/{id_}/{GROUP}")

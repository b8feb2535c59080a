"""Episodes to export, stores to import into, and whether two episodes are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from toy_log import episode

from pirl_contract import Camera, Contract, Observation
from pirl_contract.contract import Field
from pirl_server.config.interchange import ExportSettings, ImportEpisodes
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.interchange.episodes.import_run import Imported, import_episodes
from pirl_server.interchange.episodes.lerobot_exporter import write

SIDE = 64
Peer = Callable[..., dict[str, Any]]
CONTRACT = Contract(
    robot="toy",
    cameras=(Camera("base", SIDE, SIDE),),
    state=tuple(Field(f"s{index}", "1") for index in range(21)),
    action=(Field("dx", "m", -0.1, 0.1), Field("grip", "1", -1.0, 1.0)),
    rate_hz=20.0,
)
PEER_CONTRACT = Contract(
    robot="so",
    cameras=(Camera("top", SIDE, SIDE),),
    state=(Field("a.pos", "rad", -2.0, 2.0), Field("b.pos", "rad", -2.0, 2.0), Field("c.pos", "rad", -2.0, 2.0)),
    action=(Field("b.pos", "rad", -2.0, 2.0), Field("a.pos", "rad", -2.0, 2.0)),
    rate_hz=10.0,
)
"""the robot of `lerobot_peer.make`, its entries in another order"""


@dataclass
class Steady:
    """Progress that cancels after some episodes."""

    most: int = 10**9
    done: int = 0

    @property
    def cancelled(self) -> bool:
        return self.done >= self.most

    def progress(self, done: int, total: int, message: str) -> None:
        self.done = done


def scene(index: int, side: int = SIDE) -> np.ndarray:
    """A smooth image without noise."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(2 * np.pi * (x + 0.3 * index)), np.cos(2 * np.pi * (y - 0.2 * index)), np.sin(np.pi * (x + y))]
    return np.round(127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def logged(number: int, success: bool | None = True, decisions: int = 3, **settings: Any) -> Episode:
    """An episode with a final observation and images of a scene; every column differs between episodes."""
    contract = settings.pop("contract", CONTRACT)
    plain = episode(number, success, np.array([0.5, -0.5], np.float32), decisions, contract=contract, **settings)
    random = np.random.default_rng(number)
    images = {camera.name: np.stack([scene(10 * number + each, camera.height) for each in range(decisions)])
              for camera in contract.cameras}  # fmt: skip

    def normal(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    calls = replace(
        plain.calls,
        images=images,
        chain=normal(decisions, 5, 2, 2),
        log_prob=normal(decisions, 2, 2),
        seed=random.integers(2**63, size=decisions).astype(np.uint64),
        sde_index=random.integers(4, size=decisions).astype(np.int32),
        latency_ms=random.random(decisions).astype(np.float32),
    )
    count = len(plain.steps.reward)
    steps = replace(
        plain.steps,
        state=normal(count, 21),
        executed=random.uniform(-0.1, 0.1, size=(count, 2)).astype(np.float32),
        reward=random.random(count).astype(np.float32),
        alterations=random.integers(4, size=count).astype(np.uint32),
    )
    final = Observation({name: pixels[0] for name, pixels in images.items()}, steps.state[-1], plain.info.instruction)
    return Episode(plain.info, calls, steps, replace(final, robot_id="arm"))


def export(episodes: Sequence[Episode], out: Path, images: Any = "png") -> Sequence[str]:
    """Write them as a LeRobotDataset."""
    return write([lambda each=each: each for each in episodes], out, ExportSettings(images=images), Steady())


def store_at(folder: Path) -> EpisodeStore:
    return EpisodeStore(folder / "episodes")


def imported(path: Path, store: EpisodeStore, progress: Steady | None = None, **settings: Any) -> Imported:
    """Import a dataset, with the contract as a file where one is given."""
    contract = settings.pop("contract", None)
    if contract is not None:
        file = store.root.parent / "contract.json"
        file.write_text(contract.to_json())
        settings["contract"] = str(file)
    return import_episodes(ImportEpisodes(path=str(path), **settings), store, progress or Steady())


def same(first: Episode, second: Episode, but_images: bool = False) -> None:
    """Assert that two episodes are equal, bit for bit and type for type."""
    for table in ("calls", "steps"):
        ours, theirs = getattr(first, table), getattr(second, table)
        for each in fields(ours):
            one, other = getattr(ours, each.name), getattr(theirs, each.name)
            if each.name == "images":
                assert list(one) == list(other)
                assert but_images or all(np.array_equal(one[name], other[name]) for name in one)
            else:
                assert one.dtype == other.dtype, each.name
                np.testing.assert_array_equal(one, other, each.name)
    assert (first.final is None) == (second.final is None)
    if first.final is not None and second.final is not None:
        np.testing.assert_array_equal(first.final.state, second.final.state)
        for name, image in first.final.images.items():
            np.testing.assert_array_equal(image, second.final.images[name])

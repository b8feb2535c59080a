"""Memory of a job on stored episodes: it holds no more images for many episodes, or for a long one, than for a few."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_arm import INSTRUCTIONS, SEEING, Heard, toy_policy
from toy_log import GOOD, episode

from pirl_contract import Camera
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes.schema import Episode
from pirl_server.episodes.store import EpisodeStore
from pirl_server.training.episode_dataset import episode_windows
from pirl_server.training.episode_selection import select

CONTRACT = replace(SEEING, cameras=tuple(Camera(each.name, 64, 64) for each in SEEING.cameras))
DECISIONS = 100
IMAGE_BYTES = DECISIONS * len(CONTRACT.cameras) * 64 * 64 * 3
"""of one episode"""


def big(number: int, decisions: int = DECISIONS) -> Episode:
    made = episode(number, True, GOOD, decisions=decisions, contract=CONTRACT)
    images = {each.name: np.full((decisions, 64, 64, 3), number, np.uint8) for each in CONTRACT.cameras}
    info = replace(made.info, created="2026-01-01T00:00:00+00:00")
    return replace(made, info=info, calls=replace(made.calls, images=images))


def peak(work: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("few", "many"), [((DECISIONS,) * 4, (DECISIONS,) * 16), ((400,), (1600,))])
def test_more_episodes_or_longer_ones_need_no_more_memory_for_images(
    tmp_path: Path, few: tuple[int, ...], many: tuple[int, ...]
) -> None:
    policy, peaks, held = toy_policy(sees=True, contract=CONTRACT), list[int](), list[int]()
    for name, lengths in (("few", few), ("many", many)):
        store = EpisodeStore(tmp_path / name)
        for number, decisions in enumerate(lengths):
            store.write(big(number, decisions))

        def learn(store: EpisodeStore = store) -> None:
            log = select(store, EpisodeSelection(), CONTRACT, INSTRUCTIONS, Heard()).log
            data = episode_windows(policy, log)
            assert data.windows.images is not None
            assert len(data) == sum(each.decisions for each in log.facts)

        peaks.append(peak(learn))
        held.append(peak(lambda store=store: [store.open(each.id) for each in store.list()]))  # type: ignore[misc]
    more = (sum(many) - sum(few)) // DECISIONS * IMAGE_BYTES
    assert peaks[1] - peaks[0] < more / 8
    assert held[1] - held[0] > more, "negative control: all of them held"

"""Labels given after publication: the newest counts for all readers; a crash costs at most the one being written."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pirl_contract import Contract, Observation, StepOutcome
from pirl_server.episodes.store import EpisodeStore

Observe = Callable[[int], Observation]


@pytest.fixture
def published(service: Any, contract: Contract, observe: Observe) -> str:
    client = service.connect()
    episode_id: str = client.start_episode(contract, observe(0).instruction)
    chunk = client.infer(observe(0))
    client.report_outcomes([StepOutcome(chunk.chunk_id, 0, np.zeros(2, np.float32), np.zeros(3, np.float32))])
    client.end_episode("failure", "sim", "time_limit")
    return episode_id


def seen(store: EpisodeStore, episode_id: str) -> tuple[Any, ...]:
    info, summary, listed = store.open(episode_id).info, store.summary(episode_id), store.list()[0]
    assert (info.success, info.label_source) == (summary.success, summary.label_source)
    assert listed == summary
    return info.success, info.label_source


def test_the_newest_label_counts_for_readers_old_and_new(service: Any, published: str) -> None:
    other = EpisodeStore(service.store.root)
    assert seen(other, published) == (False, "sim")
    assert service.store.label(published, True, "operator", "it did") is False
    assert seen(other, published) == seen(service.store, published) == (True, "operator")
    assert other.label(published, None, "operator") is True
    assert seen(service.store, published) == seen(EpisodeStore(service.store.root), published) == (None, "")


def test_an_unknown_episode_is_not_labelled(service: Any) -> None:
    with pytest.raises(KeyError):
        service.store.label("f" * 32, True, "operator")
    assert not (service.store.root / "labels.jsonl").exists()


def test_a_line_that_a_crash_cut_off_is_no_label_and_spoils_no_other(service: Any, published: str) -> None:
    store, file = service.store, service.store.root / "labels.jsonl"
    store.label(published, True, "operator")
    whole = file.read_bytes()
    store.label(published, None, "")
    last = file.read_bytes()[len(whole) :]
    for cut in sorted({1, 2, *range(3, len(last) - 2, 9), len(last) - 2, len(last) - 1}):
        file.write_bytes(whole + last[:cut])
        fresh = EpisodeStore(store.root)
        assert seen(fresh, published) == (True, "operator"), cut
        fresh.label(published, False, "classifier")
        assert seen(fresh, published) == seen(EpisodeStore(store.root), published) == (False, "classifier")


def test_labels_from_many_threads_are_all_kept(service: Any, published: str, tmp_path: Path) -> None:
    stores = [EpisodeStore(service.store.root) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: stores[n % 4].label(published, bool(n % 2), "sim", str(n)), range(40)))
    lines = (service.store.root / "labels.jsonl").read_text().splitlines()
    assert sorted(int(line.split('"note": "')[1].split('"')[0]) for line in lines) == list(range(40))
    assert len({seen(store, published) for store in stores}) == 1

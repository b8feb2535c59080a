"""Statistics of many episodes in a stream: those of numpy over all rows at once, read once and kept by content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_episode_store import make_episode

from pirl_server.episodes import statistics as module
from pirl_server.episodes.statistics import Stream, dataset_statistics, statistics
from pirl_server.episodes.store import EpisodeStore


def rows(count: int, seed: int = 0) -> np.ndarray:
    """Far from zero, where a sum of squares loses its digits."""
    return (np.random.default_rng(seed).normal(size=(count, 3)) * [1, 10, 0.1] + [5, -3, 1000]).astype(np.float32)


@pytest.mark.parametrize("parts", [1, 7, 300])
def test_a_stream_gives_what_numpy_gives_over_all_rows(parts: int) -> None:
    whole, stream = rows(900), Stream()
    for part in np.array_split(whole, parts):
        stream.add(part)
    stream.add(np.array([[np.nan, 0, 0], [0, np.inf, 0]], np.float32))
    found = stream.finish()
    assert found.count == 900
    expected = whole.astype(np.float64)
    np.testing.assert_allclose(found.mean, expected.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.std, expected.std(axis=0), rtol=1e-6)
    np.testing.assert_array_equal([found.low, found.high], [expected.min(axis=0), expected.max(axis=0)])
    np.testing.assert_allclose(
        [found.q01, found.q99], np.quantile(whole, [0.01, 0.99], axis=0), rtol=1e-6
    )  # fmt: skip


def test_quantiles_of_more_rows_than_are_kept_are_close_in_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in rising order: a stream that kept the first ones, or the last, would be far off."""
    monkeypatch.setattr(module, "KEPT_ROWS", 2000)
    stream, whole = Stream(), np.arange(20_000, dtype=np.float32)[:, None]
    for part in np.array_split(whole, 40):
        stream.add(part)
    found = stream.finish()
    ranks = np.array([found.q01[0], found.q99[0]]) / 20_000
    np.testing.assert_allclose(ranks, [0.01, 0.99], atol=4 * np.sqrt(0.01 * 0.99 / 2000))
    assert (found.low, found.high) == ((0.0,), (19_999.0,))


def test_those_of_a_store_are_read_once_and_kept_by_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = EpisodeStore(tmp_path / "episodes")
    written = [store.write(make_episode(calls=4, steps=count)) for count in (5, 9)]
    found = dataset_statistics(store, [each.id for each in written])
    actions = np.concatenate([store.open(each.id).steps.executed for each in written]).astype(np.float64)
    np.testing.assert_allclose(found["action"].mean, actions.mean(axis=0), rtol=1e-6)
    assert (found["state"].count, found["action"].count) == (8, 14)
    with monkeypatch.context() as patch:
        patch.setattr(module, "stream_statistics", lambda episodes: pytest.fail("read again"))
        assert dataset_statistics(store, [each.id for each in reversed(written)]) == found
    episode = make_episode(calls=4, steps=3)
    third = store.write(replace(episode, info=replace(episode.info, dry_run=True)))
    assert dataset_statistics(store, [written[0].id, third.id]) != found
    assert statistics(["--root", str(tmp_path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["episodes"] == 2, "no dry runs"
    assert printed["action"]["mean"] == list(found["action"].mean)
    with pytest.raises(SystemExit):
        statistics(["--root", str(tmp_path), "--robot", "arm-7"])
    assert "no row with finite values" in capsys.readouterr().err

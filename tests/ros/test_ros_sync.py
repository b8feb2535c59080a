"""The newest complete set: never mixed, never old, never completed with anything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pirl_ros.sync import Synchronizer

MS = 1_000_000
HOUR_NS = 3_600_000_000_000


def make(slop_s: float = 0.01) -> Synchronizer:
    return Synchronizer({"camera": 0.5, "joints": 0.5}, slop_s)


def test_a_silent_stream_is_named() -> None:
    sync = make()
    sync.push("joints", 0, "j", 0)
    bundle, reason = sync.newest(0)
    assert bundle is None
    assert "camera" in reason
    assert "joints" not in reason


def test_a_stale_stream_is_named_with_its_age() -> None:
    sync = make()
    sync.push("joints", 0, "j", 0)
    sync.push("camera", 0, "c", 0)
    assert sync.newest(500 * MS)[0] is not None
    bundle, reason = sync.newest(1500 * MS)
    assert bundle is None
    assert "stale: 1.5 s" in reason


def test_the_newest_common_stamp_wins_over_newer_parts() -> None:
    sync = make()
    for stamp in (0, 50, 100):
        sync.push("joints", stamp * MS, f"j{stamp}", stamp * MS)
    for stamp in (0, 50):
        sync.push("camera", stamp * MS, f"c{stamp}", stamp * MS)
    bundle, _ = sync.newest(110 * MS)
    assert bundle is not None
    assert bundle.values == {"joints": "j50", "camera": "c50"}
    assert bundle.stamp_ns == 50 * MS


def test_streams_apart_make_no_set() -> None:
    sync = make()
    sync.push("joints", 0, "j", 0)
    sync.push("camera", 30 * MS, "c", 0)
    bundle, reason = sync.newest(0)
    assert bundle is None
    assert "30 ms apart" in reason


def test_a_clock_that_jumps_makes_nothing_stale_or_fresh() -> None:
    sync = make()
    for jump_ns in (HOUR_NS, -HOUR_NS):
        sync.push("joints", 2 * HOUR_NS, "old", 0)
        sync.push("camera", 2 * HOUR_NS, "old", 0)
        sync.push("joints", 2 * HOUR_NS + jump_ns, "new", 50 * MS)
        sync.push("camera", 2 * HOUR_NS + jump_ns, "new", 50 * MS)
        bundle, _ = sync.newest(60 * MS)
        assert bundle is not None
        assert set(bundle.values.values()) == {"new"}
        assert sync.newest(60 * MS + 500 * MS)[0] is None
        sync.clear()


@given(
    st.lists(st.tuples(st.sampled_from(["camera", "joints"]), st.integers(0, 400), st.integers(0, 40)), max_size=40),
    st.integers(0, 900),
)
def test_whatever_comes_a_set_is_fresh_and_close(arrivals: list[tuple[str, int, int]], later_ms: int) -> None:
    sync, now = make(), 0
    for stream, stamp_ms, pause_ms in arrivals:
        now += pause_ms * MS
        sync.push(stream, stamp_ms * MS, (stamp_ms * MS, now), now)
    now += later_ms * MS
    bundle, reason = sync.newest(now)
    assert (bundle is None) == bool(reason)
    if bundle is not None:
        stamps = [stamp for stamp, _ in bundle.values.values()]
        assert max(stamps) - min(stamps) <= 10 * MS
        assert all(now - received <= 500 * MS for _, received in bundle.values.values())

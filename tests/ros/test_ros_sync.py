"""The newest complete set: never mixed, never old, never completed with anything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pirl_ros.profile.sections import Rule
from pirl_ros.sensing.synchronizer import Stream, Synchronizer

MS = 1_000_000
HOUR_NS = 3_600_000_000_000


def make(slop_s: float = 0.01) -> Synchronizer:
    return Synchronizer({"camera": Stream(0.5), "joints": Stream(0.5)}, slop_s)


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


def make_ruled(rule: Rule, max_age_s: float = 2.0) -> Synchronizer:
    sync = Synchronizer({"joints": Stream(0.5), "wrench": Stream(max_age_s, rule)}, 0.01)
    for stamp in (100, 200, 300):
        sync.push("wrench", stamp * MS, f"w{stamp}", stamp * MS)
    return sync


@pytest.mark.parametrize(("rule", "chosen"), [("asof", "w200"), ("hold", "w300")])
def test_a_ruled_stream_gives_its_message_whatever_the_distance(rule: Rule, chosen: str) -> None:
    sync = make_ruled(rule)
    sync.push("joints", 260 * MS, "j", 310 * MS)
    bundle, reason = sync.newest(320 * MS)
    assert bundle is not None, reason
    assert bundle.values == {"joints": "j", "wrench": chosen}
    assert (bundle.stamp_ns, bundle.received_ns) == (260 * MS, 310 * MS), "a held message says nothing about the age"


def test_asof_never_takes_a_message_from_later() -> None:
    sync = make_ruled("asof")
    sync.push("joints", 90 * MS, "j", 310 * MS)
    assert sync.newest(320 * MS) == (None, "wrench has no message stamped before the others")


@pytest.mark.parametrize("rule", ["asof", "hold"])
def test_a_ruled_stream_has_its_own_age_limit(rule: Rule) -> None:
    sync = make_ruled(rule)
    sync.push("joints", 2250 * MS, "j", 2250 * MS)
    assert sync.newest(2290 * MS)[0] is not None
    sync.push("joints", 2350 * MS, "j", 2350 * MS)
    assert sync.newest(2350 * MS) == (None, "wrench is stale: 2.0 s old, limit 2 s")


def test_a_fast_stream_is_kept_long_enough_for_a_slow_one() -> None:
    sync = Synchronizer({"camera": Stream(0.5), "joints": Stream(0.5)}, 0.001)
    sync.push("camera", 0, "c", 0)
    for stamp in range(400):
        sync.push("joints", stamp * MS, f"j{stamp}", stamp * MS)
    bundle, reason = sync.newest(400 * MS)
    assert bundle is not None, reason
    assert bundle.values["joints"] == "j0"


def test_what_is_too_old_to_be_used_is_not_kept() -> None:
    sync = make()
    for stamp in range(0, 10_000, 10):
        sync.push("camera", stamp * MS, "c", stamp * MS)
    assert len(sync._arrivals["camera"]) == 51


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

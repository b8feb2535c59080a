"""Robots on a busy device: who shares a pass, who is superseded, and what one robot's fault does to the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from patience import patient

from pirl_contract import Observation
from pirl_server.policy.served_policy import PolicyRequest, PolicySample
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import BusyError, SupersededError
from pirl_server.serving.request_queue import Batch

Observe = Callable[[int], Observation]


@dataclass
class Busy:
    """An engine whose device is held by one request of robot `first` until `free` is called."""

    engine: Engine
    policy: Any
    hold: threading.Event
    first: Any
    observe: Observe

    def submit(self, robot_id: str, seed: int = 0, **how: Any) -> Any:
        return self.engine.submit(self.observe(seed), explore=False, robot_id=robot_id, seed=seed, **how)

    def free(self) -> None:
        self.hold.set()
        assert self.first.result(patient(30))

    @property
    def rows(self) -> list[int]:
        """Batch sizes since the warm-up."""
        return [len(batch) for batch in self.policy.batches[6:]]


@pytest.fixture
def busy(make_policy: Any, observe: Observe) -> Iterator[Busy]:
    engine, hold, reached, armed = Engine(), threading.Event(), threading.Event(), threading.Event()

    def before() -> None:
        if armed.is_set():
            reached.set()
            assert hold.wait(patient(30))

    policy = make_policy(before=before)
    engine.swap(policy)
    assert [len(batch) for batch in policy.batches] == [1, 1, 2, 4, 8, 16], "every size is warm before it serves"
    armed.set()
    first = engine.submit(observe(0), explore=False, robot_id="first")
    assert reached.wait(patient(30))
    yield Busy(engine, policy, hold, first, observe)
    hold.set()
    engine.close()


def test_all_who_wait_are_served_by_one_pass(busy: Busy) -> None:
    """So with a pass of 100 ms, 8 robots at 10 Hz wait for the pass on the device and for their own: two at most."""
    waiting = [busy.submit(f"arm-{index}", seed=index) for index in range(8)]
    busy.free()
    answers = [each.result(patient(30)) for each in waiting]
    assert busy.rows == [1, 8]
    assert [answer.rows for answer in answers] == [8] * 8
    assert [answer.sample.seed for answer in answers] == list(range(8)), "each has its own row"
    assert all(answer.queue_ms > 0 for answer in answers)


def test_more_than_a_batch_holds_are_served_in_order(busy: Busy) -> None:
    order: list[str] = []
    busy.engine.observe(lambda batch: order.extend(each.robot_id for each in batch.requests))
    waiting = [busy.submit(f"arm-{index}") for index in range(40)]
    busy.free()
    assert all(each.result(patient(30)) for each in waiting)
    busy.engine.close()
    assert busy.rows == [1, 16, 16, 8]
    assert order == ["first", *(f"arm-{index}" for index in range(40))]


def test_a_newer_request_takes_the_place_of_the_older(busy: Busy) -> None:
    flood = [busy.submit("arm-1", seed=seed, sequence=seed, session="s") for seed in range(1, 50)]
    other = busy.submit("arm-2", seed=7)
    newest = busy.submit("arm-1", seed=50, sequence=50, session="s")
    late = busy.submit("arm-1", seed=3, sequence=3, session="s")
    for each in (*flood, late):
        with pytest.raises(SupersededError, match="arm-1"):
            each.result(0)  # at once, not when the device is free
    busy.free()
    assert newest.result(patient(30)).sample.seed == 50
    assert other.result(patient(30)).rows == 2
    assert busy.rows == [1, 2]
    stats = busy.engine.stats()
    assert (stats.superseded, stats.answered) == (50, 3)


def test_one_robot_s_fault_is_its_own(busy: Busy) -> None:
    good = busy.submit("arm-1", seed=1)
    bad = busy.engine.submit(Observation({}, np.zeros(9, np.float32), ""), explore=False, robot_id="arm-2")
    busy.free()
    with pytest.raises(ValueError, match="9 entries"):
        bad.result(patient(30))
    assert good.result(patient(30)).rows == 2
    assert busy.engine.stats().failed == 1


def test_a_row_that_breaks_the_pass_does_not_break_the_others(busy: Busy, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = type(busy.policy).sample_batch

    def breaks(self: Any, asks: list[PolicyRequest]) -> list[PolicySample | ValueError]:
        if any(ask.seed == 13 for ask in asks):
            raise RuntimeError("device-side assert")
        return draw(self, asks)

    monkeypatch.setattr(type(busy.policy), "sample_batch", breaks)
    waiting = {seed: busy.submit(f"arm-{seed}", seed=seed) for seed in (11, 12, 13, 14)}
    busy.free()
    with pytest.raises(RuntimeError, match="device-side assert"):
        waiting.pop(13).result(patient(30))
    assert {seed: each.result(patient(30)).sample.seed for seed, each in waiting.items()} == {11: 11, 12: 12, 14: 14}


def test_an_observer_that_fails_harms_nobody(busy: Busy, caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Batch] = []

    def fail(batch: Batch) -> None:
        raise RuntimeError("no disk")

    busy.engine.observe(fail)
    busy.engine.observe(seen.append)
    busy.free()
    assert busy.submit("arm-1").result(patient(30))
    busy.engine.close()
    assert [len(batch.requests) for batch in seen] == [1, 1]
    assert "an observer of the engine failed" in caplog.text


def test_active_robots_are_waited_for_though_the_device_is_free(
    make_policy: Any, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window of a minute ends as soon as all who are active wait; a robot that is alone never meets it."""
    monkeypatch.setattr("pirl_server.serving.request_queue.ACTIVE_S", 600.0)
    engine, policy = Engine(window_ms=60_000), make_policy()
    engine.swap(policy)
    for _ in range(2):
        assert engine.submit(observe(0), explore=False, robot_id="arm-0").result(patient(30)).rows == 1
    waiting = [engine.submit(observe(0), explore=False, robot_id=f"arm-{index}") for index in (1, 2, 0)]
    assert [each.result(patient(30)).rows for each in waiting] == [3, 3, 3]
    engine.close()


def test_snapshots_do_not_wait_for_the_device(busy: Busy) -> None:
    waiting = busy.submit("arm-1")
    stats = busy.engine.stats()
    assert (stats.waiting, stats.answered, stats.current, stats.loaded) == (1, 0, "v1", ("v1",))
    assert busy.engine.current is busy.policy
    assert busy.engine.loaded == {"v1": busy.policy}
    busy.free()
    assert waiting.result(patient(30))
    stats = busy.engine.stats()
    assert (stats.waiting, stats.answered, dict(stats.batches)) == (0, 2, {1: 2})
    assert stats.last_batch_ms > 0
    assert stats.mean_batch_ms > 0


def test_the_retry_hint_grows_with_the_queue(make_policy: Any, observe: Observe) -> None:
    hold, reached, armed = threading.Event(), threading.Event(), threading.Event()
    engine = Engine(queue_size=3, batch_sizes=(1,))
    engine.swap(
        make_policy(delay_s=0.02, before=lambda: (reached.set(), hold.wait(patient(30))) if armed.is_set() else None)
    )
    armed.set()
    pending = [engine.submit(observe(0), explore=False, robot_id="first")]
    assert reached.wait(patient(30))
    pending += [engine.submit(observe(0), explore=False, robot_id=f"arm-{index}") for index in range(3)]
    with pytest.raises(BusyError) as caught:
        engine.submit(observe(0), explore=False, robot_id="arm-9")
    assert caught.value.retry_after_s >= 4 * 0.02
    hold.set()
    assert all(each.result(patient(30)) for each in pending)
    engine.close()


def test_requests_whose_askers_left_cost_no_pass(busy: Busy) -> None:
    left = busy.submit("arm-1")
    late = busy.submit("arm-2", deadline=time.monotonic() - 1)
    assert left.cancel()
    busy.free()
    with pytest.raises(TimeoutError):
        late.result(patient(30))
    busy.engine.close()
    assert busy.rows == [1]
    stats = busy.engine.stats()
    assert (stats.given_up, stats.expired) == (1, 1)

"""The thread that owns the device: order, deadlines, bounds, swaps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from patience import patient

from pirl_contract import Observation
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import BusyError, ExpiredError, NoPolicyError


@pytest.fixture
def engine() -> Iterator[Engine]:
    running = Engine(queue_size=2)
    yield running
    running.close()


class Gate:
    """Holds a policy on the device, after its warm-up, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened, self.armed = threading.Event(), threading.Event(), False
        self.draws = 0

    def __call__(self) -> None:
        if self.armed:
            self.draws += 1
            self.reached.set()
            assert self.opened.wait(patient(30))


@pytest.fixture
def held(engine: Engine, make_policy: Any, observe: Callable[[int], Observation]) -> Iterator[tuple[Engine, Gate, Any]]:
    """An engine whose device is busy with one request until the gate opens."""
    gate = Gate()
    engine.swap(make_policy(before=gate))
    gate.armed = True
    first = engine.submit(observe(0), explore=False, robot_id="arm-1")
    assert gate.reached.wait(patient(30))
    yield engine, gate, first
    gate.opened.set()


def test_without_a_policy_nothing_is_taken(engine: Engine, observe: Callable[[int], Observation]) -> None:
    assert engine.current is None
    with pytest.raises(NoPolicyError, match="no policy is loaded"):
        engine.submit(observe(0), explore=False, robot_id="arm-1")


def test_a_given_seed_fixes_the_draw_and_drawn_seeds_differ(
    engine: Engine, make_policy: Any, observe: Callable[[int], Observation]
) -> None:
    engine.swap(make_policy())
    first, again = (engine.submit(observe(0), explore=True, robot_id="arm-1", seed=7).result() for _ in range(2))
    np.testing.assert_array_equal(first.sample.chain, again.sample.chain)
    seeds = {engine.submit(observe(0), explore=True, robot_id="arm-1").result().sample.seed for _ in range(50)}
    assert len(seeds) == 50


def test_an_expired_request_never_reaches_the_device(
    held: tuple[Engine, Gate, Any], observe: Callable[[int], Observation]
) -> None:
    engine, gate, first = held
    late = engine.submit(observe(1), explore=False, robot_id="arm-1", deadline=time.monotonic() - 1)
    gate.opened.set()
    with pytest.raises(ExpiredError, match="after its deadline"):
        late.result(patient(30))
    assert first.result(patient(30))
    assert gate.draws == 1


def test_a_cancelled_request_never_reaches_the_device(
    held: tuple[Engine, Gate, Any], observe: Callable[[int], Observation]
) -> None:
    engine, gate, _ = held
    given_up = engine.submit(observe(1), explore=False, robot_id="arm-1")
    assert given_up.cancel()
    after = engine.submit(observe(2), explore=False, robot_id="arm-1")
    gate.opened.set()
    assert after.result(patient(30))
    assert gate.draws == 2  # the first and the last


def test_a_full_queue_refuses(held: tuple[Engine, Gate, Any], observe: Callable[[int], Observation]) -> None:
    engine, gate, first = held
    waiting = [engine.submit(observe(i), explore=False, robot_id=f"arm-{i}") for i in range(2)]
    with pytest.raises(BusyError, match="2 requests") as caught:
        engine.submit(observe(3), explore=False, robot_id="arm-9")
    assert caught.value.retry_after_s > 0
    newer = engine.submit(observe(3), explore=False, robot_id="arm-1")  # which has a place already
    gate.opened.set()
    assert all(future.result(patient(30)) for future in [first, waiting[0], newer])
    assert engine.stats().refused == 1


def test_what_nobody_waits_for_makes_room(
    held: tuple[Engine, Gate, Any], observe: Callable[[int], Observation]
) -> None:
    engine, gate, _ = held
    given_up = engine.submit(observe(0), explore=False, robot_id="arm-1")
    late = engine.submit(observe(0), explore=False, robot_id="arm-2", deadline=time.monotonic() - 1)
    assert given_up.cancel()
    taken = engine.submit(observe(0), explore=False, robot_id="arm-3")
    with pytest.raises(ExpiredError):
        late.result(0)  # told before the device is free
    gate.opened.set()
    assert taken.result(patient(30))
    stats = engine.stats()
    assert (stats.given_up, stats.expired, stats.refused) == (1, 1, 0)


def test_the_request_on_the_device_finishes_on_the_old_policy(
    held: tuple[Engine, Gate, Any], make_policy: Any, observe: Callable[[int], Observation]
) -> None:
    engine, gate, first = held
    with ThreadPoolExecutor() as pool:
        swapping = pool.submit(engine.swap, make_policy(version="v2"))
        gate.opened.set()
        swapping.result(patient(30))
    assert first.result(patient(30)).policy.version == "v1"
    assert engine.submit(observe(1), explore=False, robot_id="arm-1").result(patient(30)).policy.version == "v2"
    assert set(engine.loaded) == {"v2"}
    assert engine.stats().swaps == 1


def test_robots_are_answered_between_the_steps_of_a_warm_up(
    engine: Engine, make_policy: Any, observe: Callable[[int], Observation]
) -> None:
    engine.swap(make_policy())
    answered, waiting = list[int](), list[Any]()

    def step() -> None:
        answered.append(engine.stats().answered)
        waiting.append(engine.submit(observe(0), explore=False, robot_id=f"arm-{len(waiting)}"))

    engine.load(make_policy(version="v2", before=step))
    assert answered == [0, 1, 2, 3, 4, 5], "both modes alone, then 2, 4, 8 and 16 rows: a robot after each"
    assert {each.result(patient(30)).policy.version for each in waiting} == {"v1"}, "loaded is not used"


def test_a_policy_that_cannot_be_warmed_up_changes_nothing(
    engine: Engine, make_policy: Any, observe: Callable[[int], Observation]
) -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    engine.swap(make_policy())
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.swap(make_policy(version="v2", before=fail))
    assert engine.submit(observe(0), explore=False, robot_id="arm-1").result().policy.version == "v1"


def test_another_contract_or_chain_shape_is_refused(engine: Engine, make_policy: Any) -> None:
    first = make_policy()
    engine.swap(first)
    with pytest.raises(ValueError, match=r"rate_hz: 20\.0 here, 10\.0 there"):
        engine.swap(make_policy(contract=replace(first.contract, rate_hz=10.0)))
    with pytest.raises(ValueError, match="chain"):
        engine.swap(make_policy(denoise_steps=8))
    assert engine.current is first


def test_a_failing_request_does_not_end_the_thread(
    engine: Engine, make_policy: Any, observe: Callable[[int], Observation]
) -> None:
    engine.swap(make_policy())
    wrong = Observation({}, np.zeros(9, np.float32), "x")
    with pytest.raises(ValueError, match="9 entries"):
        engine.submit(wrong, explore=False, robot_id="arm-1").result()
    assert engine.submit(observe(0), explore=False, robot_id="arm-1").result().policy.version == "v1"


def test_closing_answers_those_who_wait(held: tuple[Engine, Gate, Any], observe: Callable[[int], Observation]) -> None:
    engine, gate, first = held
    waiting = engine.submit(observe(1), explore=False, robot_id="arm-1")
    closing = threading.Thread(target=engine.close)
    closing.start()
    while not engine._closing:
        time.sleep(0.001)
    gate.opened.set()
    closing.join()
    assert first.result(patient(30)).policy.version == "v1"
    with pytest.raises(NoPolicyError, match="stopping"):
        waiting.result(patient(30))
    with pytest.raises(NoPolicyError, match="stopping"):
        engine.submit(observe(2), explore=False, robot_id="arm-1")

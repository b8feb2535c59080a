"""Several versions in memory: who answers whom, what is refused, and that none of it is mixed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from patience import patient

from pirl_contract import Observation
from pirl_server.policy.served_policy import PolicyRequest
from pirl_server.serving import warm_up
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import NoPolicyError

Observe = Callable[[int], Observation]


@pytest.fixture
def engine(make_policy: Any) -> Iterator[Engine]:
    """Two versions in memory, v1 is current, and room for one more."""
    running = Engine(max_loaded=3, window_ms=0)
    running.swap(make_policy())
    running.load(make_policy(version="v2", mark=2.0))
    yield running
    running.close()


def ask(engine: Engine, observe: Observe, version: str | None = None, robot_id: str = "arm-1") -> str:
    answer = engine.submit(observe(0), explore=False, robot_id=robot_id, version=version).result(patient(30))
    assert (answer.sample.actions == float(answer.policy.version[1:])).all()
    return answer.policy.version


def test_a_named_version_answers_and_without_one_the_current(engine: Engine, observe: Observe) -> None:
    assert [ask(engine, observe, version) for version in (None, "v2", "v1")] == ["v1", "v2", "v1"]
    engine.use("v2")
    assert ask(engine, observe) == "v2"
    assert engine.stats().loaded == ("v1", "v2")


def test_a_version_that_is_not_loaded_is_refused(engine: Engine, observe: Observe) -> None:
    with pytest.raises(NoPolicyError, match="v7 is not loaded, v1, v2 is"):
        engine.submit(observe(0), explore=False, robot_id="arm-1", version="v7")
    with pytest.raises(NoPolicyError, match="v7 is not loaded"):
        engine.use("v7")
    with pytest.raises(NoPolicyError, match="v7 is not loaded"):
        engine.submit_idle(PolicyRequest(observe(0), False, 0), "v7")


def test_memory_is_not_promised_twice(engine: Engine, make_policy: Any) -> None:
    engine.load(make_policy(version="v3"))
    with pytest.raises(ValueError, match="no slot for v4: 3 versions may be loaded and v1, v2, v3 are"):
        engine.load(make_policy(version="v4"))
    with pytest.raises(ValueError, match="no slot for v4"):
        engine.check_room("v4")
    engine.check_room("v3")
    engine.unload("v3")
    engine.load(make_policy(version="v4"))
    assert set(engine.loaded) == {"v1", "v2", "v4"}


class Clock:
    """What the warm-up measures with: only policies let it pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(warm_up, "time", SimpleNamespace(monotonic=lambda: self.now))

    def takes(self, *delays_s: float) -> Callable[[], None]:
        """Of a policy whose draws take so long, the last one again and again."""
        left = list(delays_s)

        def draw() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return draw


def test_a_version_too_slow_for_its_own_actions_is_refused_before_its_batches(
    make_policy: Any, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """3 actions at 20 Hz are played in 150 ms. The first draw alone may be slow: it may compile."""
    clock = Clock(monkeypatch)
    with closing(Engine(max_loaded=3, window_ms=0)) as running:
        running.swap(make_policy(before=clock.takes(0.01)))
        slow = make_policy(version="v2", before=clock.takes(0.16))
        words = "v2 is too slow: a chunk takes 160 ms, and 10 ms of v1; its 3 actions are played in 150 ms"
        with pytest.raises(ValueError, match=words):
            running.load(slow, any_speed=False)
        assert [len(batch) for batch in slow.batches] == [1] * 6
        assert ask(running, observe) == "v1"
        running.load(make_policy(version="v3", before=clock.takes(5.0, 0.3, 0.14, 0.5)), any_speed=False)
        assert set(running.loaded) == {"v1", "v3"}


def test_a_slow_version_may_follow_one_that_is_nearly_as_slow(
    make_policy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with closing(Engine(max_loaded=3)) as running:
        running.swap(make_policy(before=clock.takes(0.2)))
        running.load(make_policy(version="v2", before=clock.takes(0.4)), any_speed=False)
        running.load(make_policy(version="v3", before=clock.takes(0.6)))  # robots had it before
        assert set(running.loaded) == {"v1", "v2", "v3"}


def test_two_loads_at_once_do_not_pass_the_limit(make_policy: Any) -> None:
    running, hold = Engine(max_loaded=2), threading.Event()
    running.swap(make_policy())
    with ThreadPoolExecutor() as pool:
        first = pool.submit(running.load, make_policy(version="v2", before=lambda: hold.wait(patient(30))))
        while not running._warming:
            pass
        with pytest.raises(ValueError, match="no slot for v3"):
            running.load(make_policy(version="v3"))
        hold.set()
        first.result(patient(30))
    running.close()


def test_the_current_version_can_not_be_unloaded(engine: Engine) -> None:
    with pytest.raises(ValueError, match="v1 is in use"):
        engine.unload("v1")
    with pytest.raises(KeyError):
        engine.unload("v7")


def test_a_version_leaves_after_those_who_wait_for_it(engine: Engine, make_policy: Any, observe: Observe) -> None:
    hold, reached, armed = threading.Event(), threading.Event(), threading.Event()

    def busy() -> None:
        if armed.is_set():
            reached.set()
            assert hold.wait(patient(30))

    engine.swap(make_policy(version="v3", mark=3.0, before=busy))
    armed.set()
    first = engine.submit(observe(0), explore=False, robot_id="arm-1")
    assert reached.wait(patient(30))
    waiting = engine.submit(observe(0), explore=False, robot_id="arm-2", version="v2")
    with ThreadPoolExecutor() as pool:
        leaving = pool.submit(engine.unload, "v2")
        while "v2" not in engine._shelf._leaving:
            pass
        with pytest.raises(NoPolicyError, match="v2"):
            engine.submit(observe(0), explore=False, robot_id="arm-3", version="v2")
        assert not leaving.done()
        hold.set()
        leaving.result(patient(30))
    assert waiting.result(patient(30)).policy.version == "v2"
    assert first.result(patient(30)).policy.version == "v3"
    assert set(engine.loaded) == {"v3"}


def test_one_batch_is_of_one_version(engine: Engine, make_policy: Any, observe: Observe) -> None:
    hold, reached = threading.Event(), threading.Event()
    batches: list[tuple[str, int]] = []

    def busy() -> None:
        if armed.is_set():
            armed.clear()
            reached.set()
            assert hold.wait(patient(30))

    armed = threading.Event()
    engine.load(make_policy(version="v3", mark=3.0, before=busy))
    armed.set()
    first = engine.submit(observe(0), explore=False, robot_id="first", version="v3")
    assert reached.wait(patient(30))
    engine.observe(lambda batch: batches.append((batch.policy.version, len(batch.requests))))
    wanted = ["v1", "v2", None, "v2", "v3", "v1"]
    waiting = [
        engine.submit(observe(0), explore=False, robot_id=f"arm-{index}", version=version)
        for index, version in enumerate(wanted)
    ]
    hold.set()
    answers = [each.result(patient(30)) for each in waiting]
    assert [answer.policy.version for answer in answers] == ["v1", "v2", "v1", "v2", "v3", "v1"]
    assert [answer.rows for answer in answers] == [3, 2, 3, 2, 1, 3]
    assert first.result().rows == 1
    engine.close()  # the last observer has been called
    assert batches == [("v3", 1), ("v1", 3), ("v2", 2), ("v3", 1)]


def test_idle_draws_wait_for_the_robots_and_leave_with_their_version(
    engine: Engine, make_policy: Any, observe: Observe
) -> None:
    hold, reached, armed = threading.Event(), threading.Event(), threading.Event()

    def busy() -> None:
        if armed.is_set():
            reached.set()
            assert hold.wait(patient(30))

    drawn: list[tuple[str, bool]] = []
    engine.swap(make_policy(version="v3", mark=3.0, before=busy))
    armed.set()
    first = engine.submit(observe(0), explore=False, robot_id="arm-1")
    assert reached.wait(patient(30))
    engine.observe(lambda batch: drawn.append((batch.policy.version, batch.idle)))
    compared = engine.submit_idle(PolicyRequest(observe(1), False, 5), "v2")
    robot = engine.submit(observe(2), explore=False, robot_id="arm-2")
    hold.set()
    assert compared.result(patient(30)).policy.version == "v2"
    assert all(answer.result(patient(30)).policy.version == "v3" for answer in (first, robot))
    forgotten = [engine.submit_idle(PolicyRequest(observe(1), False, 5), "v2") for _ in range(3)]
    engine.close()
    assert drawn[:3] == [("v3", False), ("v3", False), ("v2", True)]
    assert engine.stats().answered == 2
    for each in forgotten:
        assert each.cancelled() or each.exception() or each.result().policy.version == "v2"

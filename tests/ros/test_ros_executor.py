"""The executor of the nodes: what it runs, what it waits for, and that nothing of ours ends its wait for nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from patience import Patience


@pytest.fixture
def node(ros: Any) -> Iterator[Any]:
    from rclpy.node import Node

    node = Node("worker", namespace=f"/executor_{time.monotonic_ns()}")
    yield node
    node.destroy_node()


@pytest.fixture
def executor(node: Any) -> Iterator[Any]:
    from pirl_ros.adapters.executor import RobotExecutor

    executor: Any = RobotExecutor()
    executor.add_node(node)
    yield executor
    executor.shutdown()


def until(executor: Any, condition: Callable[[], bool]) -> None:
    patience = Patience(30.0)
    while not condition():
        assert patience.left_s > 0
        executor.work()


class Waits:
    """What each wait of an executor found, and how many wait lists were made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from pirl_ros.adapters.wait_list import WaitList

        self.found: list[list[Any]] = []
        self.made = 0
        make, wait = WaitList.__init__, WaitList.wait

        def counted(its: Any, *given: Any) -> None:
            self.made += 1
            make(its, *given)

        def kept(its: Any, timeout_ns: int) -> Any:
            ready = wait(its, timeout_ns)
            self.found.append([entity.item for entity in ready])
            return ready

        monkeypatch.setattr(WaitList, "__init__", counted)
        monkeypatch.setattr(WaitList, "wait", kept)

    def woken(self, executor: Any) -> int:
        """How many waits were ended by the executor's own guard condition."""
        return sum(executor._guard in found for found in self.found)


def test_callbacks_end_no_wait_and_make_no_wait_list(node: Any, executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """rclpy's executors end the next wait with each callback, and build a wait set for each wait."""
    ticks: list[int] = []
    node.create_timer(0.005, lambda: ticks.append(1))
    until(executor, lambda: len(ticks) > 2)
    waits = Waits(monkeypatch)
    until(executor, lambda: len(ticks) > 30)
    assert (waits.woken(executor), waits.made) == (0, 0)
    node.create_timer(60.0, lambda: None)  # the control: one that is new has to be waited for
    executor.work(), executor.work()
    assert waits.woken(executor) == 1
    assert waits.made >= 1


def test_what_is_created_in_a_callback_is_run_and_what_is_destroyed_is_not(node: Any, executor: Any) -> None:
    order: list[str] = []

    def first() -> None:
        node.destroy_timer(timers[0])
        order.append("first")
        timers.append(node.create_timer(0.001, lambda: order.append("created")))

    def doomed() -> None:
        order.append("doomed")

    timers = [node.create_timer(0.001, first)]
    until(executor, lambda: "created" in order)
    assert order.count("first") == 1
    second = node.create_timer(0.001, doomed)
    until(executor, lambda: "doomed" in order)
    node.destroy_timer(second)
    seen = order.count("doomed")
    until(executor, lambda: order.count("created") > 20)
    assert order.count("doomed") == seen


def test_of_two_that_are_ready_one_may_destroy_the_other(node: Any, executor: Any) -> None:
    order: list[str] = []
    timers: dict[str, Any] = {}

    def run(name: str, other: str) -> None:
        order.append(name)
        if other in timers:
            node.destroy_timer(timers.pop(other))

    timers["a"] = node.create_timer(0.02, lambda: run("a", "b"))
    timers["b"] = node.create_timer(0.02, lambda: run("b", "a"))
    time.sleep(0.03)  # both are ready
    until(executor, lambda: len(order) > 5)
    assert len(set(order)) == 1


def test_a_wait_goes_on_when_another_thread_destroys_what_it_waits_for(node: Any, executor: Any) -> None:
    ticks: list[int] = []
    doomed = node.create_timer(60.0, lambda: None)
    node.create_timer(0.005, lambda: ticks.append(1))
    until(executor, lambda: len(ticks) > 2)
    doomed.handle.destroy_when_not_in_use()  # behind the node's back: nothing wakes the executor
    until(executor, lambda: len(ticks) > 10)
    node._timers.remove(doomed)


@pytest.mark.parametrize("reentrant", [False, True])
def test_one_that_awaits_keeps_others_of_its_group_out(node: Any, executor: Any, reentrant: bool) -> None:
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup

    from pirl_ros.adapters.awaitables import sleep

    group = ReentrantCallbackGroup() if reentrant else MutuallyExclusiveCallbackGroup()
    done: list[str] = []

    async def slow() -> None:
        node.destroy_timer(timer)
        done.append("began")
        await sleep(node, 0.1)
        done.append("ended")

    timer = node.create_timer(0.001, slow, callback_group=group)
    until(executor, lambda: done == ["began"])
    node.create_timer(0.001, lambda: done.append("other"), callback_group=group)
    until(executor, lambda: "other" in done and "ended" in done)
    assert (done.index("other") < done.index("ended")) == reentrant


def test_a_future_of_another_thread_resumes_what_awaits_it(node: Any, executor: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from pirl_ros.adapters.awaitables import from_thread

    got: list[str] = []

    async def ask() -> None:
        node.destroy_timer(timer)
        got.append(await from_thread(node, pool.submit(lambda: "an answer")))

    with ThreadPoolExecutor(1) as pool:
        timer = node.create_timer(0.001, ask)
        until(executor, lambda: bool(got))
    assert got == ["an answer"]


@pytest.mark.parametrize("awaits", [False, True])
def test_the_exception_of_a_callback_is_raised_once(node: Any, executor: Any, awaits: bool) -> None:
    from rclpy.callback_groups import ReentrantCallbackGroup

    from pirl_ros.adapters.awaitables import sleep

    async def fail() -> None:
        node.destroy_timer(timer)
        if awaits:
            await sleep(node, 0.001)
        raise ArithmeticError("of a callback")

    # In the node's own group it would keep the timer out that ends its sleep.
    timer = node.create_timer(0.001, fail, callback_group=ReentrantCallbackGroup())
    with pytest.raises(ArithmeticError, match="of a callback"):
        until(executor, lambda: False)
    for _ in range(5):
        executor.work()


def test_services_and_clients_are_served(node: Any, executor: Any) -> None:
    from rclpy.callback_groups import ReentrantCallbackGroup
    from std_srvs.srv import Trigger

    from pirl_ros.adapters.awaitables import call_service

    answers: list[bool] = []

    def answer(request: Any, response: Any) -> Any:
        response.success = True
        return response

    node.create_service(Trigger, "try", answer)
    client = node.create_client(Trigger, "try")

    async def call() -> None:
        node.destroy_timer(timer)
        answers.append((await call_service(node, client, Trigger.Request(), lambda: 30.0)).success)

    timer = node.create_timer(0.001, call, callback_group=ReentrantCallbackGroup())
    until(executor, lambda: bool(answers))
    assert answers == [True]


def test_a_node_that_was_removed_is_run_no_more(node: Any, executor: Any) -> None:
    ticks: list[int] = []
    node.create_timer(0.001, lambda: ticks.append(1))
    until(executor, lambda: len(ticks) > 2)
    executor.remove_node(node)
    seen = len(ticks)
    for _ in range(5):
        executor.work()
    assert len(ticks) == seen


def test_an_action_client_that_was_destroyed_since_it_was_ready_is_left_alone(node: Any, executor: Any) -> None:
    """A callback of the same pass did it, as a deactivation does: rclpy itself would end the process."""
    from pirl_msgs.action import ExecuteInstruction
    from rclpy._rclpy_pybind11 import RCLError
    from rclpy.action import ActionClient

    client = ActionClient(node, ExecuteInstruction, "execute")
    client.destroy()
    for what in ("feedback", "status", "goal_response", "cancel_response", "result_response"):
        setattr(client, f"_is_{what}_ready", what == "cancel_response")
    with pytest.raises(RCLError, match="action client pointer is invalid"):
        client.take_data()
    with pytest.raises(StopIteration):
        executor._execute_waitable(client).send(None)

"""Awaitables for callbacks that must not block their executor: a thread's result, a service call, a delay."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future as ThreadFuture
from typing import Any, TypeVar

from rclpy.task import Future

T = TypeVar("T")

_READY_S = 0.05


def from_thread(node: Any, result: ThreadFuture[T]) -> Awaitable[T]:
    """Return what awaits a result of another thread; its exception is raised by the await."""
    future: Any = Future()

    def done(thread_future: ThreadFuture[T]) -> None:
        error = thread_future.exception()
        if error is None:
            future.set_result(thread_future.result())
        else:
            future.set_exception(error)
        if node.executor is not None:
            node.executor.wake()

    result.add_done_callback(done)
    return future


def sleep(node: Any, seconds: float) -> Awaitable[None]:
    """Return what awaits the end of a time span."""
    future: Any = Future()

    def over() -> None:
        node.destroy_timer(timer)
        future.set_result(None)

    timer = node.create_timer(seconds, over)
    return future


async def call_service(node: Any, client: Any, request: Any, patience_s: Callable[[], float]) -> Any:
    """Call a service and return its answer, or None when there is none within `patience_s()`, which may change."""
    began_s = time.monotonic()
    # A request to a service that is not known yet is lost without a word.
    while not client.service_is_ready():
        if time.monotonic() > began_s + patience_s():
            return None
        await sleep(node, _READY_S)
    future = client.call_async(request)

    def give_up() -> None:
        if not future.done() and time.monotonic() > began_s + patience_s():
            client.remove_pending_request(future)
            future.set_result(None)

    timer = node.create_timer(_READY_S, give_up)
    try:
        return await future
    finally:
        node.destroy_timer(timer)

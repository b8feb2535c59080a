"""One thread owns the device and draws the samples; a policy is replaced between two requests, never during one."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from pirl_contract import Continuation, Contract, Observation
from pirl_server.policy.sample import Sample, ServedPolicy
from pirl_server.serving.refusals import BusyError, ExpiredError, NoPolicyError


@dataclass(frozen=True)
class Inference:
    """One answered request."""

    sample: Sample
    policy: ServedPolicy
    """the policy that drew it, whichever is current by now"""
    queue_ms: float
    infer_ms: float
    rows: int = 1
    """requests that were answered by the same pass over the device"""


@dataclass(frozen=True)
class _Request:
    observation: Observation
    explore: bool
    seed: int
    deadline: float | None
    submitted: float
    answer: Future[Inference]


@dataclass(frozen=True)
class _Swap:
    policy: ServedPolicy
    done: Future[None]


class Engine:
    """The queue in front of the device. Every method may be called from any thread."""

    def __init__(self, queue_size: int = 16) -> None:
        self.queue_size = queue_size
        self._changed = threading.Condition()
        self._requests: deque[_Request] = deque()
        self._swaps: deque[_Swap] = deque()
        self._current: ServedPolicy | None = None
        self._sample_shape: tuple[int, ...] = ()
        self._closing = False
        # random start, then counting: unique in this process, and unrelated between two of them
        self._seeds = itertools.count(int.from_bytes(os.urandom(8), "little"))
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def current(self) -> ServedPolicy | None:
        """The policy that answers now; None before the first `swap` has taken effect. Never waits."""
        return self._current

    def submit(
        self,
        observation: Observation,
        *,
        explore: bool,
        robot_id: str,
        sequence: int = 0,
        session: str = "",
        version: str | None = None,
        deadline: float | None = None,
        seed: int | None = None,
        continuation: Continuation | None = None,
    ) -> Future[Inference]:
        """Queue one request; `deadline` is a `time.monotonic()` value.

        `version` None: whichever is current when the device is free. Raises BusyError (queue full) and NoPolicyError
        (also for a version that is not loaded) at once. The future raises ExpiredError, SupersededError, or what the
        policy raised (ValueError for this request's own fault); cancelled while it waits, the request never reaches
        the device.
        """
        if seed is None:
            seed = next(self._seeds) % 2**63
        request = _Request(observation, explore, seed, deadline, time.monotonic(), Future())
        with self._changed:
            if self._current is None or self._closing:
                raise NoPolicyError("the server is stopping" if self._closing else "no policy is loaded yet")
            if len(self._requests) >= self.queue_size:
                raise BusyError(f"{self.queue_size} requests are waiting already")
            self._requests.append(request)
            self._changed.notify_all()
        return request.answer

    def swap(self, policy: ServedPolicy) -> None:
        """Warm the policy up on the device, then serve it; returns when it is current.

        Raises ValueError when a running server cannot take it (other contract, other chain shape) and whatever the
        warm-up raises; the old policy serves on then.
        """
        swap = _Swap(policy, Future())
        with self._changed:
            if self._closing:
                raise NoPolicyError("the server is stopping")
            self._swaps.append(swap)
            self._changed.notify_all()
        swap.done.result()

    def close(self) -> None:
        """Finish the request on the device, refuse the waiting ones and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while (item := self._next()) is not None:
            if isinstance(item, _Swap):
                self._take_over(item)
            else:
                self._answer(item)
        stopping = NoPolicyError("the server is stopping")
        for request in self._requests:
            request.answer.set_exception(stopping) if request.answer.set_running_or_notify_cancel() else None
        for swap in self._swaps:
            swap.done.set_exception(stopping)

    def _next(self) -> _Request | _Swap | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._swaps or self._requests)
            if self._closing:
                return None
            return self._swaps.popleft() if self._swaps else self._requests.popleft()

    def _answer(self, request: _Request) -> None:
        policy, started = self._current, time.monotonic()
        assert policy is not None
        if not request.answer.set_running_or_notify_cancel():
            return
        if request.deadline is not None and started > request.deadline:
            late_ms = 1000 * (started - request.deadline)
            request.answer.set_exception(ExpiredError(f"waited until {late_ms:.0f} ms after its deadline"))
            return
        try:
            sample = policy.sample(request.observation, explore=request.explore, seed=request.seed)
        except Exception as error:  # the asking thread re-raises it: one bad request must not end the model thread
            request.answer.set_exception(error)
            return
        queue_ms, infer_ms = 1000 * (started - request.submitted), 1000 * (time.monotonic() - started)
        request.answer.set_result(Inference(sample, policy, queue_ms, infer_ms))

    def _take_over(self, swap: _Swap) -> None:
        try:
            shape = _warm_up(swap.policy)
            self._check_fits(swap.policy, shape)
        except Exception as error:  # handed to the thread that asked for the swap
            swap.done.set_exception(error)
            return
        with self._changed:
            self._current, self._sample_shape = swap.policy, shape
        swap.done.set_result(None)

    def _check_fits(self, policy: ServedPolicy, shape: tuple[int, ...]) -> None:
        if self._current is None:
            return
        if differences := self._current.contract.difference(policy.contract):
            raise ValueError(f"a running server keeps its contract; restart it for {policy.version}: {differences[0]}")
        if shape != self._sample_shape:
            raise ValueError(
                f"chain [K+1, H, A] of {policy.version} is {shape}, of the served policy {self._sample_shape}:"
                " open episodes would not fit; restart the server to serve it"
            )


def _warm_up(policy: ServedPolicy) -> tuple[int, ...]:
    """Draw once in each mode, so that no robot waits for a first call; return the shape of the chain."""
    observation = dummy_observation(policy.contract, next(iter(policy.instructions), "warm up"))
    policy.sample(observation, explore=True, seed=0)
    return policy.sample(observation, explore=False, seed=0).chain.shape


def dummy_observation(contract: Contract, instruction: str) -> Observation:
    """Return black images and a zero state that fit the contract."""
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in contract.cameras}
    return Observation(images, np.zeros(contract.state_dim, np.float32), instruction)

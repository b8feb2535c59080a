"""One thread owns the device and samples for all robots in batches; versions change between two batches.

Who is served when: each robot has at most one request waiting, its newest; the robots' places are served in order; what
waits for the same policy version is drawn in one pass, up to the largest batch size. A lone robot is served at once,
several are waited for a few milliseconds (`window_ms`). Warming up a new version takes turns with the robots' batches;
draws for comparison (`submit_idle`) happen when nothing else is to be done.

For metrics: `stats()` is a snapshot that never waits for the device, and every function given to `observe` is called
with each finished `Batch`, on the model thread, after the robots have their answers: it must be quick.
"""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial

from pirl_contract import Observation, PreviousChunk
from pirl_server.policy.served_policy import BATCH_SIZES, PolicyRequest, PolicySample, ServedPolicy
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.request_queue import Batch, EngineStats, Inference, Refused, Request, RequestQueue, tell
from pirl_server.serving.warm_up import Shape, WarmUp

_LOG = logging.getLogger(__name__)
IDLE_LIMIT = 64
"""draws for comparison that are kept waiting; the oldest is given up first"""


class Engine:
    """The queue in front of the device. Every method may be called from any thread; only the model thread draws."""

    def __init__(
        self,
        queue_size: int = 64,
        *,
        window_ms: float = 3.0,
        batch_sizes: Sequence[int] = BATCH_SIZES,
        max_loaded: int = 4,
    ) -> None:
        """`queue_size` robots may wait; each of `batch_sizes` is warmed up, the last is the most rows of a batch."""
        self.queue_size, self._sizes = queue_size, tuple(sorted(batch_sizes))
        self._changed = threading.Condition()
        self._line = RequestQueue(queue_size, self._sizes[-1], window_ms / 1000)
        self._shelf = LoadedPolicies(max_loaded)
        self._warming: deque[WarmUp] = deque()
        self._idle: deque[Request] = deque()
        self._robots_turn, self._closing = True, False
        self._observers: tuple[Callable[[Batch], None], ...] = ()
        # random start, then counting: unique in this process, and unrelated between two of them
        self._seeds = itertools.count(int.from_bytes(os.urandom(8), "little"))
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def current(self) -> ServedPolicy | None:
        """The policy that answers requests without a version; None before the first `use`. Never waits."""
        return self._shelf.current

    @property
    def loaded(self) -> Mapping[str, ServedPolicy]:
        """The policies in memory by version. Never waits."""
        return self._shelf.policies

    def stats(self) -> EngineStats:
        """Return what has been done so far. Never waits for the device."""
        with self._changed:
            current = self.current.version if self.current else None
            return self._line.tally.snapshot(len(self._line.waiting), tuple(self.loaded), current)

    def observe(self, callback: Callable[[Batch], None], wanted: bool = True) -> None:
        """Call back with every batch from now on, or no more; what the callback raises is logged, no robot sees it."""
        with self._changed:
            others = tuple(each for each in self._observers if each != callback)
            self._observers = (*others, callback) if wanted else others

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
        continuation: PreviousChunk | None = None,
    ) -> Future[Inference]:
        """Queue one request; `deadline` is a `time.monotonic()` value.

        `robot_id` identifies the robot: a newer request of the same robot takes over the place of the one
        that waits. Within a `session` the higher `sequence` is newer; otherwise the later arrival. `version` None:
        whichever is current when the device is free.

        Raises BusyError (queue full; it says when to try again) and NoPolicyError (also for a version that is not
        loaded) at once. The future raises ExpiredError, SupersededError, or what the policy raised (ValueError for
        this request's own fault); cancelled while it waits, the request never reaches the device.
        """
        ask = PolicyRequest(observation, explore, next(self._seeds) % 2**63 if seed is None else seed, continuation)
        request = Request(ask, robot_id, sequence, session, version, deadline, time.monotonic(), Future())
        with self._changed:
            self._find(version)
            refused = self._line.admit(request)
            self._changed.notify_all()
        if refused:
            tell(refused)
        return request.answer

    def submit_idle(self, ask: PolicyRequest, version: str) -> Future[Inference]:
        """Draw when no robot waits: for comparison, never for a robot. Cancelled when too many of these wait.

        A robot that asks during such a draw waits until it ends: one row's time. Raises NoPolicyError.
        """
        request = Request(ask, "", 0, "", version, None, time.monotonic(), Future())
        with self._changed:
            self._find(version)
            self._idle.append(request)
            surplus = self._idle.popleft() if len(self._idle) > IDLE_LIMIT else None
            self._changed.notify_all()
        if surplus is not None:
            surplus.answer.cancel()
        return request.answer

    def load(self, policy: ServedPolicy) -> None:
        """Warm the policy up while the others serve on; it can be asked for when this returns.

        Raises ValueError when there is no room for it or a running server cannot take it (other contract, other chain
        shape), and whatever the warm-up raises.
        """
        warm_up = WarmUp(policy, self._sizes)
        with self._changed:
            self._check_open()
            self._check_room(policy.version)
            self._warming.append(warm_up)
            self._changed.notify_all()
        warm_up.done.result()

    @property
    def alive(self) -> bool:
        """Whether the model thread runs. Never waits."""
        return self._thread.is_alive()

    def check_room(self, version: str) -> None:
        """Raise ValueError, with the versions in memory, when one more can't be loaded."""
        with self._changed:
            self._check_room(version)

    def use(self, version: str) -> None:
        """Let a loaded version answer every request without one, from the next batch on. Never waits."""
        with self._changed:
            self._check_open()
            self._line.tally.counts["swaps"] += self._shelf.use(version)

    def unload(self, version: str) -> None:
        """Free a version; requests that asked for it by name are answered first, new ones are rejected.

        Raises KeyError when it is not loaded, ValueError when it is the current one.
        """
        with self._changed:
            self._shelf.leave(version)
            self._changed.wait_for(lambda: self._closing or not self._line.waiting.wants(version))
            self._shelf.remove(version)

    def swap(self, policy: ServedPolicy) -> None:
        """Load a policy, use it and free the one before it; the old one serves on when this raises, as `load` does."""
        before = self.current
        self.load(policy)
        self.use(policy.version)
        if before is not None and before.version != policy.version:
            self.unload(before.version)

    def close(self) -> None:
        """Finish the batch on the device, reject the waiting requests and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _check_open(self) -> None:
        if self._closing:
            raise NoPolicyError("the server is stopping")

    def _find(self, version: str | None) -> ServedPolicy:
        self._check_open()
        return self._shelf.find(version)

    def _check_room(self, version: str) -> None:
        self._shelf.check_room(version, (warm_up.policy.version for warm_up in self._warming))

    def _work(self) -> None:
        while (work := self._next()) is not None:
            work()
        stopping = NoPolicyError("the server is stopping")
        with self._changed:
            left = [*self._line.waiting.drop(lambda _: True), *self._idle]
        tell([(request, stopping) for request in left])
        for warm_up in self._warming:
            warm_up.done.set_exception(stopping)

    def _next(self) -> Callable[[], object] | None:
        """What the model thread does next, waited for; None: end."""
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                wait_s = self._line.wait_s(now)
                if self._warming and (wait_s is None or not self._robots_turn):
                    self._robots_turn = True
                    return self._warm
                if wait_s == 0.0:
                    self._robots_turn = False
                    current, policies = self._shelf.current, self._shelf.policies
                    assert current is not None
                    taken, refused = self._line.take(current.version, now)
                    self._changed.notify_all()  # `unload` may wait for just these
                    policy = policies[taken[0].version or current.version] if taken else current
                    return partial(self._draw, policy, taken, refused)
                if wait_s is None and self._idle:
                    return self._take_idle()
                self._changed.wait(wait_s)
        return None

    def _take_idle(self) -> Callable[[], object]:
        request = self._idle.popleft()
        policy = self.loaded.get(request.version or "")
        if policy is None:  # it was unloaded meanwhile
            return request.answer.cancel
        return partial(self._draw, policy, [request], idle=True)

    def _draw(
        self, policy: ServedPolicy, requests: Sequence[Request], refused: Refused = (), idle: bool = False
    ) -> None:
        """Draw one batch, all of one version, and notify who asked for it, and who is rejected."""
        if refused:
            tell(refused)
        running = [request for request in requests if request.answer.set_running_or_notify_cancel()]
        if not running:
            return
        started = time.monotonic()
        drawn = _sample(policy, running)
        ended = time.monotonic()
        infer_ms = 1000 * (ended - started)
        answers = tuple(
            each
            if isinstance(each, Exception)
            else Inference(each, policy, 1000 * (started - request.submitted), infer_ms, len(running))
            for request, each in zip(running, drawn)
        )
        batch = Batch(policy, tuple(running), answers, infer_ms, idle)
        with self._changed:
            self._line.answered(batch, ended)
        for request, answer in zip(running, answers):
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)
        for callback in self._observers:
            try:
                callback(batch)
            except Exception:  # an observer's fault is not the robots'
                _LOG.exception("an observer of the engine failed")

    def _warm(self) -> None:
        warm_up, fault = self._warming[0], None
        try:
            warm_up.step()
        except Exception as error:  # handed to the thread that asked for the load
            fault = error
        if fault is None and not warm_up.finished:
            return
        with self._changed:
            self._warming.popleft()
            try:
                if fault is None:
                    self._shelf.put(warm_up.policy, warm_up.shape)
                    self._line.tally.took(warm_up.draw_ms)
            except ValueError as error:
                fault = error
        warm_up.done.set_result(None) if fault is None else warm_up.done.set_exception(fault)


def _sample(policy: ServedPolicy, requests: Sequence[Request]) -> Sequence[PolicySample | Exception]:
    try:
        drawn = policy.sample_batch([request.ask for request in requests])
        assert len(drawn) == len(requests), f"{policy.version} sampled {len(drawn)} rows of {len(requests)}"
        return drawn
    except Exception as error:  # the asking threads re-raise it: no request may end the model thread
        if len(requests) == 1:
            return [error]
        return [_sample(policy, [request])[0] for request in requests]  # the innocent are answered


class LoadedPolicies:
    """Loaded policies by version. `policies` and `current` are replaced, never changed: to read them needs no lock."""

    def __init__(self, size: int) -> None:
        self.size = size
        """versions that may be in memory at the same time"""
        self.policies: Mapping[str, ServedPolicy] = {}
        self.current: ServedPolicy | None = None
        self._chain_shape: Shape = ()
        self._leaving: set[str] = set()

    def find(self, version: str | None) -> ServedPolicy:
        """Return the policy of a version, or the current one. Raises NoPolicyError when it can't be asked."""
        if self.current is None:
            raise NoPolicyError("no policy is loaded yet")
        if version is None:
            return self.current
        if version not in self.policies or version in self._leaving:
            raise NoPolicyError(f"version {version} is not loaded, {', '.join(self.policies)} is")
        return self.policies[version]

    def check_room(self, version: str, coming: Iterable[str] = ()) -> None:
        """Raise ValueError when there is no room for one more beside those in memory and those on their way."""
        others = dict.fromkeys((*self.policies, *coming))
        others.pop(version, None)
        if len(others) >= self.size:
            raise ValueError(f"no slot for {version}: {self.size} versions may be loaded and {', '.join(others)} are")

    def put(self, policy: ServedPolicy, shape: Shape) -> None:
        """Take a warm policy in. Raises ValueError when a running server can't take it: other contract, other chain."""
        if self.current is not None:
            _check_fits(policy, shape, self.current, self._chain_shape)
        self.policies = {**self.policies, policy.version: policy}
        self._chain_shape = shape

    def use(self, version: str) -> bool:
        """Make a loaded version the current one; return whether that is a change.

        Raises NoPolicyError when it is not loaded.
        """
        if version not in self.policies:
            raise NoPolicyError(f"version {version} is not loaded")
        changed = self.current is not None and self.current.version != version
        self.current = self.policies[version]
        return changed

    def leave(self, version: str) -> None:
        """Reject new requests for a version. Raises KeyError (not loaded), ValueError (in use)."""
        if version not in self.policies:
            raise KeyError(version)
        if self.current is not None and self.current.version == version:
            raise ValueError(f"{version} is in use: use another version first")
        self._leaving.add(version)

    def remove(self, version: str) -> None:
        """Forget a version that has left."""
        self._leaving.discard(version)
        self.policies = {name: policy for name, policy in self.policies.items() if name != version}


def _check_fits(policy: ServedPolicy, shape: Shape, served: ServedPolicy, served_shape: Shape) -> None:
    if differences := served.contract.difference(policy.contract):
        raise ValueError(f"a running server keeps its contract; restart it to serve {policy.version}: {differences[0]}")
    if shape != served_shape:
        raise ValueError(
            f"chain [K+1, H, A] of {policy.version} is {shape}, of the served policy {served_shape}:"
            " open episodes would not match; restart the server to serve it"
        )

"""Runs one batch of inference requests and resolves their results."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pirl_server.policy.served_policy import PolicyRequest, PolicySample, ServedPolicy


@dataclass(slots=True)  # not frozen, as the others here: for each request that costs microseconds
class Inference:
    """One answered request."""

    sample: PolicySample
    policy: ServedPolicy
    """the policy that drew it, whichever is current by now"""
    queue_ms: float
    """from `submit` to the start of its batch, the batching window included"""
    infer_ms: float
    """the whole batch on the device, which had finished"""
    rows: int = 1
    """requests that were answered by the same pass over the device"""


@dataclass(slots=True)
class Request:
    """One queued inference request. `answer` is set by the thread that takes it out of the queue."""

    ask: PolicyRequest
    robot_id: str
    sequence: int
    session: str
    version: str | None
    """None: whichever is current when the device is free"""
    deadline: float | None
    """`time.monotonic()`"""
    submitted: float
    answer: Future[Inference]

    @property
    def given_up(self) -> bool:
        """Whether the asker has cancelled it."""
        return self.answer.cancelled()

    def expired(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and now > self.deadline

    def refuse(self, reason: Exception) -> None:
        """End it with an error, unless its asker gave it up. Never under a lock: callbacks of the future run here."""
        if self.answer.set_running_or_notify_cancel():
            self.answer.set_exception(reason)


@dataclass(slots=True)
class Batch:
    """One pass over the device, as observers see it: rows in the order in which they were drawn."""

    policy: ServedPolicy
    requests: tuple[Request, ...]
    answers: tuple[Inference | Exception, ...]
    """per request; an exception is this row's own fault"""
    infer_ms: float
    idle: bool
    """drawn because nothing else waited, for comparison only: no robot was answered"""


def run_batch(policy: ServedPolicy, requests: Sequence[Request], idle: bool) -> Batch:
    """Sample for requests of one version; returns when the device has finished. Notifies no caller: see `resolve`."""
    started = time.monotonic()
    drawn = _sample(policy, requests)
    infer_ms = 1000 * (time.monotonic() - started)
    answers = tuple(
        each
        if isinstance(each, Exception)
        else Inference(each, policy, 1000 * (started - request.submitted), infer_ms, len(requests))
        for request, each in zip(requests, drawn)
    )
    return Batch(policy, tuple(requests), answers, infer_ms, idle)


def resolve(batch: Batch) -> None:
    """Notify the callers. Each request must have been taken for running: see `Future.set_running_or_notify_cancel`."""
    for request, answer in zip(batch.requests, batch.answers):
        if isinstance(answer, Exception):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)


def _sample(policy: ServedPolicy, requests: Sequence[Request]) -> Sequence[PolicySample | Exception]:
    try:
        drawn = policy.sample_batch([request.ask for request in requests])
        assert len(drawn) == len(requests), f"{policy.version} sampled {len(drawn)} rows of {len(requests)}"
        return drawn
    except Exception as error:  # the asking threads re-raise it: no request may end the model thread
        if len(requests) == 1:
            return [error]
        return [_sample(policy, [request])[0] for request in requests]  # the innocent are answered

"""One batch on the device: its rows are answered or refused one by one, and none takes the others down."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pirl_server.policy.served_policy import Sample, ServedPolicy
from pirl_server.serving.batch import Batch, Inference, Request


def draw(policy: ServedPolicy, requests: Sequence[Request], idle: bool) -> Batch:
    """Draw for requests of one version; returns when the device has finished. Nobody is told yet: see `settle`."""
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


def settle(batch: Batch) -> None:
    """Tell the askers. Each request must have been taken for running: see `Future.set_running_or_notify_cancel`."""
    for request, answer in zip(batch.requests, batch.answers):
        if isinstance(answer, Exception):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)


def _sample(policy: ServedPolicy, requests: Sequence[Request]) -> Sequence[Sample | Exception]:
    try:
        drawn = policy.sample_batch([request.ask for request in requests])
        assert len(drawn) == len(requests), f"{policy.version} drew {len(drawn)} rows of {len(requests)}"
        return drawn
    except Exception as error:  # the asking threads re-raise it: no request may end the model thread
        if len(requests) == 1:
            return [error]
        return [_sample(policy, [request])[0] for request in requests]  # the innocent are answered

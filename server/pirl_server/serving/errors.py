"""Errors of inference requests, each with its own gRPC status."""

from __future__ import annotations


class BusyError(RuntimeError):
    """No room: try again with a newer observation, not before `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ExpiredError(TimeoutError):
    """The deadline passed before the device was touched."""


class SupersededError(RuntimeError):
    """A newer request of the same robot took the place of this one while it waited."""


class StoppedError(RuntimeError):
    """A person has stopped the robot from here: no chunk until it restarts, on its own host."""


class NoPolicyError(RuntimeError):
    """Nothing can answer: no policy of that version is loaded, or the engine is closed."""

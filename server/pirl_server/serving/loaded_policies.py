"""The policies in memory and the default one. Plain data, no lock."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future

import numpy as np

from pirl_contract import Contract, Observation
from pirl_server.policy.served_policy import PolicyRequest, ServedPolicy
from pirl_server.serving.errors import NoPolicyError

SLOWER = 2.0
"""than the current policy: within that a difference may be the machine's"""


class LoadedPolicies:
    """Loaded policies by version. `policies` and `current` are replaced, never changed: to read them needs no lock."""

    def __init__(self, size: int) -> None:
        self.size = size
        """versions that may be in memory at the same time"""
        self.policies: Mapping[str, ServedPolicy] = {}
        self.current: ServedPolicy | None = None
        self._chain_shape: Shape = ()
        self._alone_ms: dict[str, float] = {}
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

    def check_speed(self, policy: ServedPolicy, alone_ms: float) -> None:
        """Raise ValueError for a chunk that takes longer than its actions are played, and than the current one's."""
        played_ms = 1000.0 * policy.execute_horizon / policy.contract.rate_hz
        served = self.current
        served_ms = math.inf if served is None else self._alone_ms[served.version]
        if served is not None and alone_ms > max(played_ms, SLOWER * served_ms):
            raise ValueError(
                f"{policy.version} is too slow: a chunk takes {alone_ms:.0f} ms, and {served_ms:.0f} ms of"
                f" {served.version}; its {policy.execute_horizon} actions are played in {played_ms:.0f} ms, so the arm"
                " would stop after each chunk"
            )

    def put(self, policy: ServedPolicy, shape: Shape, alone_ms: float) -> None:
        """Take a warm policy in, whose chunk takes `alone_ms` for one robot.

        Raises ValueError when a running server can't take it: other contract, other chain.
        """
        if self.current is not None:
            _check_fits(policy, shape, self.current, self._chain_shape)
        self.policies = {**self.policies, policy.version: policy}
        self._chain_shape, self._alone_ms[policy.version] = shape, alone_ms

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
        self._alone_ms.pop(version, None)
        self.policies = {name: policy for name, policy in self.policies.items() if name != version}


def _check_fits(policy: ServedPolicy, shape: Shape, served: ServedPolicy, served_shape: Shape) -> None:
    if differences := served.contract.difference(policy.contract):
        raise ValueError(f"a running server keeps its contract; restart it to serve {policy.version}: {differences[0]}")
    if shape != served_shape:
        raise ValueError(
            f"chain [K+1, H, A] of {policy.version} is {shape}, of the served policy {served_shape}:"
            " open episodes would not match; restart the server to serve it"
        )


Shape = tuple[int, ...]
CheckSpeed = Callable[[ServedPolicy, float], None]
"""raises ValueError for a policy whose chunk takes so many milliseconds"""


def at_any_speed(policy: ServedPolicy, alone_ms: float) -> None:
    """Take the policy, however slow it is."""


class WarmUp:
    """The draws of one policy, one per `step`: between two of them the device may serve robots."""

    def __init__(self, policy: ServedPolicy, sizes: Sequence[int], check_speed: CheckSpeed) -> None:
        """Each mode alone, then a batch of each of `sizes` above 1 with both modes in it.

        `check_speed` rejects the policy, before the batches, by what the faster of the two draws took.
        """
        self.policy, self._check_speed = policy, check_speed
        self.done: Future[None] = Future()
        self.shape: Shape = ()
        """of a chain, once the first step is done"""
        self.draw_ms = 0.0
        """of the last step"""
        self.alone_ms = math.inf
        """of the faster of the draws for one robot, since the first may compile"""
        observation = dummy_observation(policy.contract, next(iter(policy.instructions), "warm up"))
        asks = [PolicyRequest(observation, explore=row % 2 == 0, seed=row) for row in range(max(*sizes, 2))]
        self._batches = [asks[:1], asks[1:2], *(asks[:size] for size in sizes if size > 1)]

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return not self._batches

    def step(self) -> None:
        """Draw the next batch. Raises what the policy raises."""
        started, asks = time.monotonic(), self._batches.pop(0)
        for answer in self.policy.sample_batch(asks):
            if isinstance(answer, ValueError):
                raise answer
            self.shape = answer.chain.shape
        self.draw_ms = 1000 * (time.monotonic() - started)
        if len(asks) == 1:
            known, self.alone_ms = self.alone_ms, min(self.alone_ms, self.draw_ms)
            if known < math.inf:
                self._check_speed(self.policy, self.alone_ms)


def dummy_observation(contract: Contract, instruction: str) -> Observation:
    """Return black images and a zero state that fit the contract."""
    images = {camera.name: np.zeros((camera.height, camera.width, 3), np.uint8) for camera in contract.cameras}
    return Observation(images, np.zeros(contract.state_dim, np.float32), instruction)

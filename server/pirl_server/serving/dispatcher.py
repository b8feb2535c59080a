"""The way of a request to the engine, the same from gRPC and from openpi's wire: version, stop, rate, queue, result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import numpy as np

from pirl_contract import Observation, PreviousChunk
from pirl_server.policy.served_policy import ServedPolicy
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.engine import Engine
from pirl_server.serving.errors import NoPolicyError
from pirl_server.serving.instructions import instruction_or_only
from pirl_server.serving.request_queue import Inference
from pirl_server.serving.router import Router

MAX_WAIT_S = 30.0
"""longest wait for the device, also the limit of a request that names none"""


class Dispatcher:
    """Every method may be called from any thread and none waits for the device.

    `check_rate(robot_id)` raises PermissionError for a robot that sends too many requests. `default_instruction` is
    taken for requests without one; empty: the policy's only one is.
    """

    def __init__(
        self,
        engine: Engine,
        connections: RobotConnections | None = None,
        router: Router | None = None,
        check_rate: Callable[[str], None] | None = None,
        default_instruction: str = "",
    ) -> None:
        self._engine, self._router, self._check_rate = engine, router or Router(), check_rate
        self._default_instruction = default_instruction
        self.connections = connections or RobotConnections()
        self.not_finite: Counter[str] = Counter()
        """results that were rejected because of NaN or infinity, by policy version"""

    def policy(self, robot_id: str, alias: str = "", episode_id: str = "") -> ServedPolicy:
        """Return the policy that would serve this robot now.

        Raises NotFoundError for an alias that names nothing, NoPolicyError before anything is loaded.
        """
        version, current = self._router.version(robot_id, alias, episode_id), self._engine.current
        if current is None:
            raise NoPolicyError("no policy is loaded yet")
        return self._engine.loaded.get(version or "", current)  # one that was just unloaded serves no request

    def known_instructions(self, policy: ServedPolicy) -> tuple[str, ...]:
        """What a request without an instruction may mean: the server's default, else those of the policy."""
        return (self._default_instruction,) if self._default_instruction else tuple(policy.instructions)

    def instruction(self, text: str, policy: ServedPolicy) -> str:
        """The instruction of a request, which may be blank. Raises ValueError where none is known for it."""
        return instruction_or_only(text, self.known_instructions(policy))

    def check(self, robot_id: str, *, polling: bool) -> None:
        """Raise StoppedError for a stopped robot, PermissionError for one that sends too many requests.

        `polling`: the robot sends unary calls, so that a stop cannot be pushed to it.
        """
        if polling:
            self.connections.check_stop(robot_id)
        if self._check_rate is not None:
            self._check_rate(robot_id)

    def submit(
        self,
        observation: Observation,
        *,
        deadline: float,
        explore: bool = False,
        sequence: int = 0,
        session: str = "",
        continuation: PreviousChunk | None = None,
        alias: str = "",
        episode_id: str = "",
        place: str = "",
    ) -> Future[Inference]:
        """Queue one request of `observation.robot_id`; `deadline` is a `time.monotonic()` value.

        A newer request takes over the place of the one that waits: `place` is the robot's where it is empty.

        Raises as `policy` and `Engine.submit` do; pass the result through `check_actions` before a robot gets it.
        """
        submit = partial(
            self._engine.submit,
            observation,
            explore=explore,
            robot_id=place or observation.robot_id,
            sequence=sequence,
            session=session,
            deadline=deadline,
            continuation=continuation,
        )
        return self._router.ask(lambda version: submit(version=version), observation.robot_id, alias, episode_id)

    def check_actions(self, inference: Inference) -> Inference:
        """Return the inference, or raise RuntimeError when an action is NaN or infinite: no robot may get it."""
        sample, version = inference.sample, inference.policy.version
        if not np.isfinite(sample.actions).all():
            self.not_finite[version] += 1
            raise RuntimeError(f"policy {version} returned actions that are not finite, seed {sample.seed}")
        return inference

"""One rollout function for every pairing: in process, over the network, against a fake."""

from __future__ import annotations

from dataclasses import dataclass

from pirl_contract.protocols import Env, Policy


@dataclass(frozen=True)
class RolloutResult:
    """How one episode went."""

    success: bool
    steps: int
    total_reward: float
    policy_versions: tuple[str, ...]
    """distinct versions that produced its chunks, in order of appearance"""


def rollout(env: Env, policy: Policy, seed: int, max_steps: int) -> RolloutResult:
    """Run `policy` in `env` from `seed` until the episode ends or `max_steps` control steps have passed.

    Plays the first `chunk.execute_horizon` actions of each chunk, then asks again. Success counts at any step.
    """
    policy.reset()
    observation = env.reset(seed)
    steps, total, success, ended = 0, 0.0, False, False
    versions: list[str] = []
    while not ended and steps < max_steps:
        chunk = policy.infer(observation)
        if chunk.policy_version not in versions:
            versions.append(chunk.policy_version)
        for action in chunk.actions[: chunk.execute_horizon]:
            result = env.step(action)
            steps, total, success = steps + 1, total + result.reward, success or result.success
            ended = result.terminated or result.truncated
            if ended or steps >= max_steps:
                break
        if not ended and steps < max_steps:
            observation = env.observe()
    return RolloutResult(success, steps, total, tuple(versions))

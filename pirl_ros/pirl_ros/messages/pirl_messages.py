"""Converts pirl_msgs to the contract's values and back. Duck-typed: nothing here imports ROS."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from pirl_contract.schema import ActionChunk, Alteration, ControlSource, StepOutcome
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.control.safety_report import SafetyReport
from pirl_ros.policy_session.session import Standing
from pirl_ros.sensing.sensor_messages import stamp_to_ns

_STANDING = tuple(field.name for field in fields(Standing))


def ns_to_stamp(time_ns: int, stamp: Any) -> None:
    """Write nanoseconds into a builtin_interfaces/Time."""
    stamp.sec, stamp.nanosec = divmod(time_ns, 1_000_000_000)


def fill_chunk(message: Any, chunk: ActionChunk, stamp_ns: int, episode_id: str, sequence: int) -> Any:
    """Write a chunk into a pirl_msgs/ActionChunk and return it."""
    ns_to_stamp(stamp_ns, message.header.stamp)
    message.episode_id, message.sequence, message.chunk_id = episode_id, sequence, chunk.chunk_id
    message.policy_version, message.seed, message.dt = chunk.policy_version, chunk.seed, chunk.dt_s
    message.horizon, message.action_dim = chunk.actions.shape
    message.actions = chunk.actions.reshape(-1).tolist()
    message.execute_horizon = chunk.execute_horizon
    return message


def fill_policy_status(message: Any, standing: Standing, server_address: str) -> Any:
    """Write where the session with the server stands into a pirl_msgs/PolicyStatus and return it."""
    message.server_address = server_address
    for name in _STANDING:
        setattr(message, name, getattr(standing, name))
    return message


def read_chunk(message: Any, action_dim: int) -> PlayableChunk:
    """Return what the arm plays. ValueError when the numbers do not fit the shape stated or the robot."""
    horizon, width = int(message.horizon), int(message.action_dim)
    if width != action_dim or horizon < 1 or len(message.actions) != horizon * width:
        raise ValueError(
            f"chunk {message.chunk_id} holds {len(message.actions)} values for {horizon} x {width},"
            f" this arm expects action dimension {action_dim}"
        )
    return PlayableChunk(
        episode_id=message.episode_id,
        sequence=int(message.sequence),
        chunk_id=message.chunk_id,
        actions=np.array(message.actions, np.float32).reshape(horizon, width),
        execute_horizon=int(message.execute_horizon),
        stamp_ns=stamp_to_ns(message.header.stamp),
        dt_s=float(message.dt),
    )


def fill_safety_state(message: Any, report: SafetyReport, active: bool, dry_run: bool) -> Any:
    """Write what the arm does into a pirl_msgs/SafetyState and return it; discovery fields are left to its node."""
    message.mode = report.mode.value if active else "inactive"
    message.reason, message.episode_id = report.reason, report.episode_id
    message.emergency_stop, message.latched = report.emergency_stop, report.latched
    message.control_source, message.queue_depth = report.control_source, report.queue_depth
    # The generated code aborts the process for a number that is no Python float.
    message.action_age, message.speed_scale = float(report.action_age_s), float(report.speed_scale)
    message.dry_run = dry_run
    message.played, message.altered, message.dropped = report.played, report.altered, report.dropped
    message.alteration_counts = list(report.alteration_counts)
    return message


def fill_outcome(message: Any, outcome: StepOutcome, dry_run: bool = False) -> Any:
    """Write a step outcome into a pirl_msgs/StepOutcome and return it; of a dry run it says that nothing was sent."""
    altered = outcome.alterations | Alteration.DRY_RUN if dry_run else outcome.alterations
    message.chunk_id, message.index = outcome.chunk_id, outcome.index
    message.executed, message.state = outcome.executed.tolist(), outcome.state.tolist()
    message.reward, message.stamp = float(outcome.reward), outcome.time_ns
    ns_to_stamp(outcome.time_ns, message.header.stamp)
    message.alterations, message.source = int(altered), int(outcome.source)
    return message


def read_outcome(message: Any) -> StepOutcome:
    """Return a pirl_msgs/StepOutcome as the contract's value."""
    return StepOutcome(
        chunk_id=message.chunk_id,
        index=int(message.index),
        executed=np.array(message.executed, np.float32),
        state=np.array(message.state, np.float32),
        reward=float(message.reward),
        alterations=Alteration(message.alterations),
        source=ControlSource(message.source),
        time_ns=int(message.stamp),
    )

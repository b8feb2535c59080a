"""One accept and one tick of the arm executor, in simulated time."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from tracer import ROOT, Trip

from pirl_ros.control.arm_executor import ArmExecutor
from pirl_ros.control.chunk_buffer import PlayableChunk
from pirl_ros.profile.profile import Profile, load_profile
from pirl_ros.profile.sections import ArmGroup, Box, Joint
from pirl_ros.sensing.observation import JOINTS
from pirl_ros.sensing.synchronizer import Bundle

READY = [0.0, np.pi / 8, 0.0, -np.pi * 5 / 8, 0.0, np.pi * 3 / 4, np.pi / 4]
PERIOD_NS, HORIZON = 20_000_000, 8


def real_arm() -> Profile:
    """The shipped Panda as a real arm: joint targets at 50 Hz by timer, limits that bind."""
    profile = load_profile(ROOT / "launch/params/panda_sim.yaml")
    joints = tuple(Joint(j.name, j.low, j.high, j.velocity, 8.0, 400.0) for j in profile.arm.joints)
    box = Box((0.1, -0.6, 0.05), (0.8, 0.6, 0.9))
    safety = replace(profile.safety, watchdog_s=0.1, link_loss_s=0.3, max_observation_age=0.06, workspace=box)
    return replace(
        profile, action="joint_position", tick="timer", rate_hz=1e9 / PERIOD_NS, tcp_step=0.0, poses=(),
        arm=ArmGroup(joints), safety=safety,
    )  # fmt: skip


def trace() -> Trip:
    """Play two chunks, then trace the third's acceptance and the period that enters it."""
    profile, now_ns, trip = real_arm(), 10**12, Trip()
    executor, names = ArmExecutor(profile), [joint.name for joint in profile.joints]
    values = {JOINTS: SimpleNamespace(name=names, position=[*READY, 0.04, 0.04], velocity=[0.0] * len(names))}
    actions = np.tile(np.array([*READY, 1.0], np.float32), (HORIZON, 1))
    executor.begin("e")
    for number in (1, 2, 3):
        now_ns += PERIOD_NS
        chunk = PlayableChunk("e", number, f"c{number}", actions, HORIZON, now_ns)
        bundle = Bundle(now_ns, now_ns, values)
        if number < 3:
            executor.accept(chunk)
            executor.tick(bundle, now_ns)
    with trip.traceable(), trip.recording():
        dropped, tick = executor.accept(chunk), executor.tick(bundle, now_ns)
    if dropped or tick.command is None or tick.outcome is None:
        raise RuntimeError(f"the arm played nothing: {dropped or executor.report.reason}")
    return trip

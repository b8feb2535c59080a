"""Grasp detection by ManiSkill's contact test in numpy, and the speed of the object."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pirl_sim.maniskill.world import World

MIN_FORCE = 0.5
"""N, on each finger"""
MIN_COSINE = float(np.cos(np.deg2rad(85)))
"""of the angle between the contact force and the direction in which the finger opens"""


def holds(world: World) -> bool:
    """Return whether both fingers press on the object. Reads the contacts only when the hand is near it."""
    if np.linalg.norm(world.tcp.pose.p - world.object.pose.p) > world.task.reach:
        return False
    contacts = world.physics.get_contacts()
    left, right = world.fingers
    return _presses(world, contacts, left, 1.0) and _presses(world, contacts, right, -1.0)


class Feel:
    """`pirl_sim.maniskill.rewards.Touch` of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def grasped(self) -> bool:
        """Read the contacts."""
        return holds(self._world)

    def speeds(self) -> tuple[float, float]:
        """Read the object's velocities."""
        body = self._world.body
        return float(np.linalg.norm(body.linear_velocity)), float(np.linalg.norm(body.angular_velocity))


class AtRest:
    """`pirl_sim.maniskill.rewards.Touch` of an object that has just been placed.

    Until the first physics step the contacts are still those of the last episode: asking them, as ManiSkill's own
    reset does, would call an empty hand full.
    """

    def grasped(self) -> bool:
        """The hand is empty."""
        return False

    def speeds(self) -> tuple[float, float]:
        """Nothing moves."""
        return 0.0, 0.0


def _presses(world: World, contacts: list[Any], finger: Any, side: float) -> bool:
    force = _impulse(contacts, finger, world.object) / world.physics.timestep
    size = float(np.linalg.norm(force))
    if size < MIN_FORCE:
        return False
    opening = side * finger.pose.to_transformation_matrix()[:3, 1]
    return float(opening @ force) / size >= MIN_COSINE


def _impulse(contacts: list[Any], finger: Any, thing: Any) -> NDArray[np.float64]:
    """Return the impulse [3] in N s that `thing` exerts on `finger`."""
    total = np.zeros(3)
    for contact in contacts:
        first, second = contact.bodies[0].entity, contact.bodies[1].entity
        if (first == finger and second == thing) or (first == thing and second == finger):
            sign = 1.0 if first == finger else -1.0
            total += sign * np.sum([point.impulse for point in contact.points], axis=0)
    return total

"""A URDF as links and joints, strictly: what a profile is made of has to be in the file.

Units as in URDF: metres, radians, seconds. Source: wiki.ros.org/urdf/XML.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from pirl_ros.profile.sections import JointType, Origin

MOVING = frozenset(get_args(JointType))
_KNOWN = MOVING | {"fixed", "floating", "planar"}
XACRO_FIX = "expand it first: `xacro arm.urdf.xacro > arm.urdf` (apt install ros-$ROS_DISTRO-xacro)"


@dataclass(frozen=True)
class Mimic:
    """A joint that follows another: position = multiplier * that of `joint` + offset."""

    joint: str
    multiplier: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True)
class UrdfJoint:
    """One <joint>; limits that the file does not give are None."""

    name: str
    type: str
    parent: str
    child: str
    origin: Origin
    axis: tuple[float, ...]
    low: float | None = None
    high: float | None = None
    velocity: float | None = None
    mimic: Mimic | None = None

    @property
    def moves(self) -> bool:
        """Whether it is more than a fixed joint; floating and planar ones are not for arms."""
        return self.type != "fixed"


@dataclass(frozen=True)
class Urdf:
    """One robot: a tree of links."""

    name: str
    links: tuple[str, ...]
    joints: tuple[UrdfJoint, ...]
    collision_shapes: int
    """how many <collision> elements the file has"""

    @cached_property
    def above(self) -> dict[str, UrdfJoint]:
        """By link: the joint that carries it."""
        return {joint.child: joint for joint in self.joints}

    @property
    def root(self) -> str:
        """The link that no joint carries."""
        return next(link for link in self.links if link not in self.above)

    @property
    def leaves(self) -> list[str]:
        """Links that carry none, in the file's order."""
        parents = {joint.parent for joint in self.joints}
        return [link for link in self.links if link not in parents]

    def path(self, base: str, tip: str) -> list[UrdfJoint]:
        """Return the joints from link `base` to link `tip`, in this order. ValueError: no such link, or not below."""
        for link in (base, tip):
            if link not in self.links:
                raise ValueError(f"the URDF has no link '{link}'; it has {', '.join(self.links)}")
        joints, link = [], tip
        while link != base:
            if link not in self.above:
                raise ValueError(f"'{tip}' is not below '{base}' in the tree of links: --base and --tip name one arm")
            joints.append(self.above[link])
            link = joints[-1].parent
        return joints[::-1]


def read_urdf(text: str) -> Urdf:
    """Read the text of a URDF. Raises ValueError in one line: what is wrong, where, and what to do."""
    if "<!ENTITY" in text:
        raise ValueError("this URDF defines XML entities, which can grow without end: write out what they stand for")
    try:
        robot = ET.fromstring(text)
    except ET.ParseError as error:
        raise ValueError(f"not a URDF: {error}") from None
    if robot.tag != "robot":
        raise ValueError(f"not a URDF: the outermost element is <{robot.tag}>, expected <robot>")
    if any("/xacro}" in element.tag for element in robot.iter()):
        raise ValueError(f"this is xacro, no URDF: {XACRO_FIX}")
    links = tuple(_name(link) for link in robot.findall("link"))
    joints = tuple(_joint(joint) for joint in robot.findall("joint"))
    _check_tree(links, joints)
    return Urdf(_printable(robot.get("name") or "robot"), links, joints, sum(1 for _ in robot.iter("collision")))


def _joint(element: ET.Element) -> UrdfJoint:
    name, kind = _name(element), element.get("type", "")
    where = f"joint '{name}'"
    if kind not in _KNOWN:
        raise ValueError(f"{where}: type '{kind}' is not one of {', '.join(sorted(_KNOWN))}")
    parent, child = (_attribute(element, tag, "link", where) for tag in ("parent", "child"))
    origin, axis, limit = element.find("origin"), element.find("axis"), element.find("limit")
    low, high, velocity = (
        None if limit is None else _number(limit, key, where) for key in ("lower", "upper", "velocity")
    )
    return UrdfJoint(
        name,
        kind,
        parent,
        child,
        Origin(_three(origin, "xyz", where), _three(origin, "rpy", where)),
        (1.0, 0.0, 0.0) if axis is None else _three(axis, "xyz", where),
        low,
        high,
        velocity,
        _mimic(element.find("mimic"), where),
    )


def _mimic(element: ET.Element | None, where: str) -> Mimic | None:
    if element is None:
        return None
    multiplier, offset = (_number(element, key, where) for key in ("multiplier", "offset"))
    return Mimic(element.get("joint", ""), 1.0 if multiplier is None else multiplier, offset or 0.0)


def _check_tree(links: tuple[str, ...], joints: tuple[UrdfJoint, ...]) -> None:
    if not joints:
        raise ValueError("the URDF has no joint")
    for kind, names in (("link", links), ("joint", tuple(joint.name for joint in joints))):
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise ValueError(f"{kind} '{twice[0]}' is defined twice")
    for joint in joints:
        for link in (joint.parent, joint.child):
            if link not in links:
                raise ValueError(f"joint '{joint.name}': the URDF has no link '{link}'")
    children = Counter(joint.child for joint in joints)
    if twice := [link for link, count in children.items() if count > 1]:
        raise ValueError(f"link '{twice[0]}' is the child of two joints: links must form a tree")
    if len(roots := [link for link in links if link not in children]) != 1:
        raise ValueError(f"links must form one tree, these have no parent: {', '.join(roots) or 'none'}")
    below = set(roots)
    while more := {joint.child for joint in joints if joint.parent in below} - below:
        below |= more
    if ring := [link for link in links if link not in below]:
        raise ValueError(f"links must form one tree, these hang on each other in a ring: {', '.join(ring)}")
    _check_mimics({joint.name: joint.mimic.joint for joint in joints if joint.mimic})


def _check_mimics(leaders: dict[str, str]) -> None:
    """ValueError when a joint ends up mimicking itself."""
    for name in leaders:
        leader, steps = leaders[name], 0
        while leader in leaders and steps <= len(leaders):
            leader, steps = leaders[leader], steps + 1
        if steps > len(leaders):
            raise ValueError(f"joint '{name}' mimics itself in the end: correct its <mimic joint=...>")


def _name(element: ET.Element) -> str:
    if not (name := element.get("name")):
        raise ValueError(f"a <{element.tag}> has no name")
    return _printable(name)


def _printable(name: str) -> str:
    """The name itself. ValueError: it would be another one in the profile's text, or more than a name."""
    if not name.isprintable() or "\\" in name:
        raise ValueError(f"name {name!r} has a line break, another control character or a backslash: rename it")
    return name


def _attribute(element: ET.Element, tag: str, key: str, where: str) -> str:
    found = element.find(tag)
    value = None if found is None else found.get(key)
    if not value:
        raise ValueError(f'{where}: <{tag} {key}="..."> is missing')
    return value


def _three(element: ET.Element | None, key: str, where: str) -> tuple[float, ...]:
    text = None if element is None else element.get(key)
    if text is None:
        return (0.0, 0.0, 0.0)
    values = tuple(_float(part, f"{where}: {key}") for part in text.split())
    if len(values) != 3:
        raise ValueError(f"{where}: {key} needs three numbers, got '{text}'")
    return values


def _number(element: ET.Element, key: str, where: str) -> float | None:
    text = element.get(key)
    return None if text is None else _float(text, f"{where}: {key}")


def _float(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        fix = f": {XACRO_FIX}" if "${" in text or "$(" in text else ""
        raise ValueError(f"{where}: expected a number, got '{text}'{fix}") from None
    if not math.isfinite(value):
        raise ValueError(f"{where}: expected a finite number, got '{text}'")
    return value

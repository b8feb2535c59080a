"""Which topics of a recording are which part of a robot's contract: a YAML file, a robot profile, or this export's own.

A map (every key but `joint_states` may be left out; topics are found with or without a namespace):

    namespace: /left                 # where two robots are in one recording
    time: stamp                      # or log: by which clock messages are ordered
    max_age: 0.5                     # s; a stream that is older at a step is stale
    stale: error                     # or gap: the episode ends there, and another one begins after it
    joint_states: [joint_states]     # JointState; a message need not hold all joints
    cameras: {base: camera/base/image_raw}      # Image or CompressedImage
    poses: {tcp: tcp_pose}           # PoseStamped
    wrenches: {tool: wrench}         # WrenchStamped
    commands:                        # JointTrajectory and JointState by name, Float64MultiArray in this order
      - {topic: arm_controller/commands, joints: [joint1, joint2]}
    gripper: {topic: gripper_controller/joint_trajectory, joint: finger, closed: 0.0, open: 0.04}
    instruction: instruction         # String
    success: success                 # Bool; the last one counts
    source: control_source           # String: policy, human or hold
    episodes: episode_events         # EpisodeEvent, or Bool (true while an episode runs); else the whole recording
    outcomes: step_outcomes          # StepOutcome: what a robot of this project reports for each of its actions
    chunks: action_chunks            # ActionChunk: the policy's
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pirl_contract import Contract
from pirl_server.config.fields import CHECKED

Seconds = Annotated[float, Field(gt=0, le=3600)]


@checked(frozen=True, config=CHECKED, kw_only=True)
class CommandTopic:
    """Joint commands."""

    topic: str
    joints: tuple[str, ...] = ()
    """in the order of a Float64MultiArray, which has no names"""


@checked(frozen=True, config=CHECKED, kw_only=True)
class GripperTopic:
    """Commands of a gripper: its action is -1 at `closed` and 1 at `open`."""

    topic: str
    joint: str
    closed: float
    open: float


@checked(frozen=True, config=CHECKED, kw_only=True)
class TopicMap:
    """A map as in the module's docstring. Topics that are empty are not read."""

    joint_states: tuple[str, ...]
    namespace: str = ""
    time: Literal["stamp", "log"] = "stamp"
    max_age: Seconds = 0.5
    stale: Literal["error", "gap"] = "error"
    cameras: dict[str, str] = field(default_factory=dict)
    poses: dict[str, str] = field(default_factory=dict)
    wrenches: dict[str, str] = field(default_factory=dict)
    commands: tuple[CommandTopic, ...] = ()
    gripper: GripperTopic | None = None
    instruction: str = "instruction"
    success: str = "success"
    source: str = "control_source"
    episodes: str = "episode_events"
    outcomes: str = "step_outcomes"
    chunks: str = "action_chunks"


_MAP = TypeAdapter(TopicMap)
EXPORTED = TopicMap(joint_states=("/state",))
"""of a recording that `mcap_exporter` wrote; its /state holds every entry by its own name"""


@dataclass(frozen=True)
class MapFile:
    """What a file says: the map and, of a robot profile, the contract."""

    topics: TopicMap
    contract: Contract | None


def read_map(path: Path) -> MapFile:
    """Read a map or a robot profile. Raises ValueError that names the file and the key."""
    from pirl_server.interchange.bags.profile_map import is_profile, of_profile

    try:
        raw = YAML(typ="safe").load(path.read_text())
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"topic map '{path}' can't be read: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"topic map '{path}' is no mapping: give a robot profile, or a map with the key joint_states")
    try:
        return of_profile(raw) if is_profile(raw) else MapFile(parse_map(raw), None)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from None


def parse_map(raw: Mapping[str, Any]) -> TopicMap:
    """Check the content of a map. Raises ValueError that names the key."""
    try:
        return _MAP.validate_python(dict(raw))
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise ValueError(f"{where}: {first['msg']}") from None


def find_topic(wanted: str, topics: Mapping[str, str], namespace: str) -> str | None:
    """Return the recorded topic that is meant, None when it was not recorded.

    `topics` are the recorded ones with their types. Raises ValueError where several could be meant.
    """
    if wanted.startswith("/"):
        return wanted if wanted in topics else None
    if namespace:
        full = f"/{namespace.strip('/')}/{wanted}"
        return full if full in topics else None
    if f"/{wanted}" in topics:
        return f"/{wanted}"
    found = sorted(topic for topic in topics if topic.endswith(f"/{wanted}"))
    if len(found) > 1:
        raise ValueError(f"'{wanted}' may be {' or '.join(found)}: choose with `namespace` in a topic map")
    return found[0] if found else None

"""The ROS 2 message types of recordings: those of Jazzy, which rosbags knows, and this project's own."""

from __future__ import annotations

from functools import cache

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

PIRL_MESSAGES = {
    "pirl_msgs/msg/ActionChunk": """
std_msgs/Header header
string episode_id
uint64 sequence
string chunk_id
string policy_version
uint64 seed
uint32 horizon
uint32 action_dim
float32[] actions
float64 dt
uint32 execute_horizon
""",
    "pirl_msgs/msg/EpisodeEvent": """
uint8 START=1
uint8 END=2
uint8 LABEL=3
uint8 RESET=4
uint8 TAKEOVER=5
std_msgs/Header header
builtin_interfaces/Time stamp
uint8 event
string episode_id
string outcome
string reason
string instruction
string control_source
int64 seed
float32 speed_scale 1.0
""",
    "pirl_msgs/msg/StepOutcome": """
std_msgs/Header header
string chunk_id
uint32 index
float32[] executed
float32[] state
float32 reward
uint32 alterations
uint8 source
uint8 SOURCE_POLICY=0
uint8 SOURCE_HUMAN=1
uint8 SOURCE_HOLD=2
int64 stamp
""",
}
"""the definitions below `msg/msg`, without comments: the server has no ROS to read them from"""


@cache
def types() -> Typestore:
    """Return the store of types that messages are made of and, where a recording holds no definitions, read with."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for name, text in PIRL_MESSAGES.items():
        store.register(get_types_from_msg(text, name))
    return store


def definition(name: str) -> str:
    """Return the definition of a type and of all that it is made of, as a recording embeds it."""
    return types().generate_msgdef(name, ros_version=2)[0]

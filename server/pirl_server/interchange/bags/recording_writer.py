"""Writes one recording as rosbag2 does: a folder with an MCAP file and metadata.yaml, definitions embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from mcap.writer import Writer
from ruamel.yaml import YAML

from pirl_server.interchange.bags.known_files import METADATA
from pirl_server.interchange.bags.message_types import definition, types
from pirl_server.interchange.bags.messages import serialised

VERSION, DISTRO = 9, "jazzy"
"""of rosbag2's metadata, and whose message types these are"""


class RecordingWriter:
    """One recording. `close` makes it whole."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._name = folder, f"{folder.name}_0.mcap"
        self._file = (folder / self._name).open("wb")
        self._writer = Writer(self._file)
        self._writer.start(profile="ros2", library="pirl")
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, tuple[int, str]] = {}
        self._counts: Counter[str] = Counter()
        self._span: tuple[int, int] | None = None

    def write(self, topic: str, kind: str, message: object, time_ns: int) -> None:
        """Write a message of a type like `sensor_msgs/msg/Image`, logged and published at this time."""
        if topic not in self._channels:
            self._channels[topic] = (self._channel(topic, kind), kind)
        channel, known = self._channels[topic]
        assert known == kind, topic
        self._writer.add_message(channel, time_ns, serialised(kind, message), time_ns, self._counts[topic])
        self._counts[topic] += 1
        first, last = self._span or (time_ns, time_ns)
        self._span = min(first, time_ns), max(last, time_ns)

    def attach(self, name: str, data: bytes) -> None:
        """Add a file that readers of messages leave alone."""
        self._writer.add_attachment(0, 0, name, "application/octet-stream", data)

    def describe(self, name: str, values: Mapping[str, str]) -> None:
        """Add texts that viewers show."""
        self._writer.add_metadata(name, dict(values))

    def close(self) -> None:
        """Write the indexes and metadata.yaml."""
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.close()
        yaml = YAML(typ="safe")
        yaml.default_flow_style = False
        with (self._folder / METADATA).open("w") as out:
            yaml.dump({"rosbag2_bagfile_information": self._information()}, out)

    def _channel(self, topic: str, kind: str) -> int:
        if kind not in self._schemas:
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", definition(kind).encode())
        said = {"offered_qos_profiles": "", "topic_type_hash": types().hash_rihs01(kind)}
        return self._writer.register_channel(topic, "cdr", self._schemas[kind], said)

    def _information(self) -> dict[str, Any]:
        first, last = self._span or (0, 0)
        said = {
            "starting_time": {"nanoseconds_since_epoch": first},
            "duration": {"nanoseconds": last - first},
            "message_count": sum(self._counts.values()),
        }
        topics = [
            {
                "topic_metadata": {
                    "name": topic, "type": kind, "serialization_format": "cdr", "offered_qos_profiles": [],
                    "type_description_hash": types().hash_rihs01(kind),
                },
                "message_count": self._counts[topic],
            }
            for topic, (_, kind) in self._channels.items()
        ]  # fmt: skip
        return cast("dict[str, Any]", said) | {
            "version": VERSION, "storage_identifier": "mcap", "relative_file_paths": [self._name],
            "topics_with_message_count": topics, "compression_format": "", "compression_mode": "",
            "files": [{"path": self._name, **deepcopy(said)}], "custom_data": None, "ros_distro": DISTRO,
        }  # fmt: skip

"""A recording of the real nodes, imported: the same steps, chunks and images as the server stored itself."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_ros_real_server import Server, run, taken_over

from pirl_contract import ControlSource
from pirl_ros.profile.profile import Profile
from pirl_server.config.interchange import ImportSettings
from pirl_server.episodes.store import EpisodeStore
from pirl_server.paths import EPISODES

pytestmark = [pytest.mark.ros, pytest.mark.slow]

RECORDED = Path(__file__).parents[2] / "launch" / "recording" / "panda_sim.yaml"
PROFILE = Path(__file__).parents[2] / "launch" / "params" / "panda_sim.yaml"


def quality(said: dict[str, Any]) -> Any:
    """A QoS profile as rosbag2 reads it from a file of overrides."""
    from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

    return QoSProfile(
        history=HistoryPolicy[said["history"].upper()],
        depth=said["depth"],
        reliability=ReliabilityPolicy[said["reliability"].upper()],
        durability=DurabilityPolicy[said["durability"].upper()],
    )


def class_of(kind: str) -> Any:
    """The class of a type like `sensor_msgs/msg/Image`."""
    package, _, name = kind.partition("/msg/")
    return getattr(import_module(f"{package}.msg"), name)


class Recorder:
    """What `ros2 bag record` does, by serialised messages: rosbag2 itself is in no wheel."""

    def __init__(self, probe: Any, path: Path) -> None:
        from rclpy.node import Node
        from rosbags.rosbag2 import StoragePlugin, Writer

        self.topics = yaml.safe_load(RECORDED.read_text())
        self._probe, self._connections, self._path = probe, {}, path
        self._node = Node("recorder", namespace=probe.namespace)
        probe.executor.add_node(self._node)
        self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self.counts = dict.fromkeys(self.topics, 0)

    def begin(self) -> None:
        """Subscribe to each topic once its publisher is there, with its own type."""
        for topic, said in self.topics.items():
            name = f"{self._probe.namespace}{topic}"
            self._probe.until(
                lambda name=name: self._node.get_publishers_info_by_topic(name), f"nothing publishes {name}"
            )
            kind = self._node.get_publishers_info_by_topic(name)[0].topic_type
            self._connect(name, kind)
            take = partial(self._take, topic, name)
            self._node.create_subscription(class_of(kind), name, take, quality(said), raw=True)

    def _connect(self, name: str, kind: str) -> None:
        from pirl_server.interchange.bags.message_types import types

        store = types()
        if kind not in store.types:
            from rosbags.typesys import get_types_from_msg

            path = Path(__file__).parents[2] / "msg" / "msg" / f"{kind.rpartition('/')[2]}.msg"
            store.register(get_types_from_msg(path.read_text(), kind))
        self._connections[name] = self._writer.add_connection(name, kind, typestore=store)

    def _take(self, topic: str, name: str, raw: bytes) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        self._writer.write(self._connections[name], now_ns, raw)
        self.counts[topic] += 1

    def fits(self) -> dict[str, bool]:
        """For each topic whether its real publishers and the file's quality are compatible."""
        from pirl_ros.adapters import qos

        found = {}
        for topic, said in self.topics.items():
            offered = self._node.get_publishers_info_by_topic(f"{self._probe.namespace}{topic}")
            found[topic] = bool(offered) and all(qos.compatible(each.qos_profile, quality(said)) for each in offered)
        return found

    def close(self) -> Path:
        self._writer.close()
        self._node.destroy_node()
        return self._path


def test_a_recording_of_the_nodes_gives_the_episodes_that_the_server_stored(
    ros: Any, probe: Any, tmp_path: Path, profile: Profile
) -> None:
    pytest.importorskip("torch", reason="torch is not installed: no policy can be served here")
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'pirl[data]'")
    from rclpy.action import ActionClient
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import ExecuteInstruction, SafetyState
    from pirl_server.interchange.bags.recording_importer import open_source

    probe.patience_s = 120.0
    server = Server(probe, tmp_path / "root")
    goals = ActionClient(probe.node, ExecuteInstruction, "execute_instruction")
    probe.listen(SafetyState, "safety_state", quality=qos.LATCHED)
    probe.listen(JointState, "joint_states")
    probe.start("sim_arm_node", simulator="fake_simulator:make_robot", task="fake")
    probe.start("robot_node", server_address=f"127.0.0.1:{server.grpc_port}", timeout_s=30.0, patience_s=60.0)
    probe.until(goals.server_is_ready, "no action server")
    probe.until(lambda: probe.seen["safety_state"] and probe.seen["safety_state"][-1].ready, "no arm")
    recorder = Recorder(probe, tmp_path / "bag")
    recorder.begin()
    assert recorder.fits() == dict.fromkeys(recorder.topics, True), "the file's qualities fit the real publishers"
    probe.until(lambda: recorder.counts["/joint_states"] > 3, "nothing is recorded")
    assert recorder.counts["/safety_state"] >= 1, "latched, published before the recorder came"
    result = run(probe, goals, ExecuteInstruction.Goal(instruction="push left", seed=1, max_duration=3.0))
    probe.until(result.done, "no result")
    taken_over(probe, goals, profile)
    for _ in range(20):
        probe.executor.spin_once(timeout_sec=0.05)
    bag = recorder.close()

    source = open_source(bag, ImportSettings(topics=str(PROFILE)), None)
    found = {each.info.instruction: each for each in (candidate.read() for candidate in source)}
    store = EpisodeStore(tmp_path / "root" / EPISODES)
    stored = {summary.instruction: store.open(summary.id) for summary in store.list()}
    assert set(found) == set(stored) == {"push left", "push right"}
    for text, theirs in stored.items():
        mine = found[text]
        assert mine.info.contract == theirs.info.contract
        assert mine.info.success == theirs.info.success
        for name in ("executed", "state", "alterations", "source", "call", "index", "time_ns", "reward"):
            np.testing.assert_array_equal(getattr(mine.steps, name), getattr(theirs.steps, name), err_msg=name)
        # while a person drives the policy is asked too, and these chunks are for nobody: they are on no topic
        published = np.isin(theirs.calls.seed, mine.calls.seed)
        assert (theirs.calls.step[~published] == -1).all()
        assert published.any()
        for name in ("chunk", "seed", "capture_time_ns", "state", "step"):
            recorded = np.asarray(getattr(theirs.calls, name))[published]
            np.testing.assert_array_equal(getattr(mine.calls, name), recorded, err_msg=name)
        for name, pixels in theirs.calls.images.items():
            np.testing.assert_array_equal(mine.calls.images[name], np.asarray(pixels)[published])
        assert mine.info.policy_versions == theirs.info.policy_versions
        assert len(mine.steps.reward) > 5
        EpisodeStore(tmp_path / "again").write(mine)
    human = found["push right"].steps.source == int(ControlSource.HUMAN)
    assert human.sum() > 20, "a person drove, and the recording says so"


def test_a_quality_that_does_not_fit_is_noticed(ros: Any) -> None:
    """Negative control: reliable from a driver that publishes best effort, latched from one that does not."""
    from pirl_ros.adapters import qos

    said = yaml.safe_load(RECORDED.read_text())
    assert not qos.compatible(qos.sensor(reliable=False), quality(said["/joint_states"]))
    assert not qos.compatible(qos.STATE, quality(said["/safety_state"]))
    assert qos.compatible(qos.LATCHED, quality(said["/safety_state"]))

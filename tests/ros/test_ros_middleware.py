"""What DDS does between our nodes and others': mismatched quality of service, another implementation."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from patience import output_of, patient

pytestmark = pytest.mark.ros

CYCLONE = Path(os.environ.get("PIRL_ORACLES", Path.home() / ".cache/pirl/oracles")) / "cyclonedds/bin/python"
# Found with unicast on the loopback interface: ROS's LOCALHOST range uses no multicast either.
CYCLONE_CONFIG = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>60</MaxAutoParticipantIndex><Peers><Peer address="localhost"/></Peers>
</Discovery></Domain></CycloneDDS>"""


def test_a_best_effort_driver_is_named_in_diagnostics(probe: Any, ros: Any) -> None:
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos

    probe.listen(DiagnosticArray, "/diagnostics")
    probe.node.create_publisher(JointState, "joint_states", qos.sensor(reliable=False))
    probe.start("arm_node")
    probe.until(lambda: "incompatible QoS" in ros.warnings_of(probe, "arm_node"), "the mismatch is not told")
    assert "reliable_sensors: false" in ros.warnings_of(probe, "arm_node"), "nor what to do about it"


def test_another_dds_implementation_reads_commands_and_feeds_states(probe: Any, profile: Any) -> None:
    if not CYCLONE.exists():
        pytest.skip("no Cyclone DDS: docker/install_oracles.sh '' cyclonedds")
    from geometry_msgs.msg import PoseStamped
    from sensor_msgs.msg import JointState

    from pirl_ros.adapters import qos
    from pirl_ros.adapters.interfaces import ActionChunk

    names = [joint.name for joint in profile.joints]
    # Neither our DDS nor our Python environment reaches into the peer's.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("LD_LIBRARY", "PYTHON", "_ROS"))}
    env |= {"CYCLONEDDS_URI": CYCLONE_CONFIG, "CYCLONE_DOMAIN": os.environ["ROS_DOMAIN_ID"]}
    command = [
        str(CYCLONE),
        str(Path(__file__).with_name("cyclone_peer.py")),
        probe.namespace,
        ",".join(names),
        str(patient(60)),
    ]

    def one_action(header: Any, sequence: int) -> Any:
        chunk = ActionChunk(header=header, episode_id="e", sequence=sequence, chunk_id=f"c{sequence}")
        chunk.horizon, chunk.action_dim, chunk.execute_horizon, chunk.dt = 1, 4, 1, 0.05
        chunk.actions = [0.01, 0.0, 0.0, 1.0]
        return chunk

    probe.listen(JointState, "joint_states")
    probe.start("arm_node")
    poses = [probe.publisher(PoseStamped, pose.topic) for pose in profile.poses]
    chunks = probe.publisher(ActionChunk, "action_chunks", qos.CHUNK)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as peer:
        states, answered = probe.seen["joint_states"], 0
        while peer.poll() is None:
            probe.until(lambda seen=answered: len(states) > seen or peer.poll() is not None, "no state from the peer")
            for state in states[answered:]:
                for publisher in poses:
                    publisher.publish(PoseStamped(header=state.header))
                if answered % 10 == 0:
                    chunks.publish(one_action(state.header, sequence=answered))
                answered += 1
        output, errors = output_of(peer, 10)
    assert peer.returncode == 0, errors
    seen = json.loads(output)
    assert seen["names"] == [joint.name for joint in profile.arm.joints]
    assert len(seen["positions"]) == 7

"""Fixtures of the robot side: the shipped profile, and ROS in a domain of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pirl_ros.profile.profile import Profile, load_profile

# For ros_probe and scripted_server, which are no tests and have no package.
sys.path.insert(0, str(Path(__file__).parent))

PROFILE_PATH = Path(__file__).parents[2] / "launch" / "params" / "panda_sim.yaml"


@pytest.fixture(scope="session")
def profile_path() -> Path:
    return PROFILE_PATH


@pytest.fixture(scope="session")
def profile() -> Profile:
    return load_profile(PROFILE_PATH)


@pytest.fixture(scope="session")
def ros() -> Iterator[Any]:
    """The probe module with ROS running: loopback only, small messages by UDP, where discovery takes 0.2 s, not 3 s."""
    pytest.importorskip("rclpy", reason="rclpy is not importable: pip install 'pirl[ros]' or source an apt ROS 2")
    pytest.importorskip("pirl_msgs.msg", reason="pirl_msgs is not built: docker/build_ros.sh, then . docker/ros_env.sh")
    os.environ["ROS_DOMAIN_ID"] = str(os.getpid() % 100 + 1)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["FASTDDS_BUILTIN_TRANSPORTS"] = "UDPv4"
    import ros_probe
    from rclpy.utilities import try_shutdown

    ros_probe.initialise()
    yield ros_probe
    try_shutdown()


@pytest.fixture
def probe(ros: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A probe in a namespace of the test's own."""
    probe = ros.Probe("/" + "".join(letter if letter.isalnum() else "_" for letter in request.node.name))
    yield probe
    probe.close()

"""The images and the compose file, read: no container engine runs here, but what they name must exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).parents[1]
IMAGES = sorted((ROOT / "docker").glob("*.Dockerfile"))
NODE = re.compile(r"\.ros/install/pirl_ros/lib/pirl_ros/(\w+)")


def copied(dockerfile: Path) -> list[str]:
    lines = re.findall(r"^COPY (.+)$", dockerfile.read_text(), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text()))


@pytest.mark.parametrize("dockerfile", IMAGES, ids=lambda path: path.stem)
def test_an_image_copies_what_exists_before_a_step_needs_it(dockerfile: Path) -> None:
    text, sources = dockerfile.read_text(), copied(dockerfile)
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    for script in re.findall(r"(docker/\w+\.sh)", "\n".join(re.findall(r"^RUN .*$", text, re.MULTILINE))):
        assert f"COPY {script} " in text or re.search(rf"^COPY .*{script} ", text, re.MULTILINE), script
        assert text.index(script) < text.index(f"bash {script}"), script


def test_the_robot_image_holds_neither_server_nor_torch() -> None:
    robot = ROOT / "docker" / "robot.Dockerfile"
    assert not {"server/", "sim/"} & set(copied(robot))
    assert "pip" not in robot.read_text(), "what it needs is in package.xml, for rosdep"


def test_the_robot_image_launches_what_the_package_installs() -> None:
    text = (ROOT / "docker" / "robot.Dockerfile").read_text()
    assert re.search(r"^FROM ros:jazzy", text, re.MULTILINE), "an official base has `ros2`"
    [command] = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    assert json.loads(command) == ["ros2", "launch", "pirl_ros", "policy.launch.py"]
    packages = {ElementTree.parse(ROOT / folder / "package.xml").findtext("name") for folder in ("msg", "pirl_ros")}
    assert packages == {"pirl_msgs", "pirl_ros"}
    assert "--base-paths msg pirl_ros" in text


def test_compose_gives_the_launch_file_arguments_that_it_declares() -> None:
    command = compose()["services"]["robot"]["command"]
    assert command[:4] == ["ros2", "launch", "pirl_ros", "policy.launch.py"]
    declared = set(
        re.findall(r"DeclareLaunchArgument\(\s*\"(\w+)\"", (ROOT / "launch" / "policy.launch.py").read_text())
    )
    assert "robot" in declared
    assert {word.partition(":=")[0] for word in command[4:]} <= declared


def test_compose_names_what_exists() -> None:
    services = compose()["services"]
    assert set(services) == {"server", "robot", "sim"}
    for name, service in services.items():
        build = service["build"]
        assert (ROOT / "docker" / build["context"]).resolve() == ROOT
        assert ROOT / build["dockerfile"] in IMAGES, name
    commands = " ".join(word for service in services.values() for word in service["command"])
    nodes = NODE.findall(commands)
    assert nodes == ["sim_arm_node"]
    assert [node for node in nodes if not (ROOT / "pirl_ros" / "scripts" / node).exists()] == []
    [profile] = re.findall(r"profile:=(\S+)", commands)
    [robot] = re.findall(r"robot:=\$\{PIRL_PROFILE:-(\w+)\}", commands)
    assert (ROOT / profile).exists()
    assert (ROOT / "launch" / "params" / f"{robot}.yaml").exists()


def test_the_nodes_of_a_robot_take_the_same_time() -> None:
    services = compose()["services"]
    robot = {name for name, service in services.items() if any("use_sim_time" in word for word in service["command"])}
    assert robot == {"robot"}
    assert "PIRL_USE_SIM_TIME=true" in (ROOT / "docker" / "compose.yaml").read_text().partition("name:")[0]


def test_the_open_server_is_published_on_loopback_unless_told_otherwise() -> None:
    server = compose()["services"]["server"]
    assert "--allow-insecure" in server["command"]
    assert all(port.startswith("${PIRL_BIND:-127.0.0.1}:") for port in server["ports"])


def test_a_checkout_leaves_its_leftovers_outside_the_image() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".venv", ".ros", ".git", "runs"} <= set(ignored)
    assert [source for image in IMAGES for source in copied(image) if source.rstrip("/") in ignored] == []

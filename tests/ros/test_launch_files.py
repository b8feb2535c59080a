"""Launch files, read and executed without ROS: arguments, executables, parameters. Where `launch` imports, by it."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_look_alike import Action, launched, parameters
from patience import completed

from pirl_ros.profile.profile import load_profile

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
POLICY, SIM = LAUNCH / "policy.launch.py", LAUNCH / "sim.launch.py"
FILES = sorted(LAUNCH.glob("*.launch.py"))
NODES = ROOT / "pirl_ros" / "pirl_ros"
EXPECTED = {"namespace", "robot", "profile", "params_file", "server", "use_sim_time", "log_level", "composed"}
NOT_PARAMETERS = {"robot", "params_file", "namespace", "composed", "log_level"}
OF_ROS = {"use_sim_time": False}
"""parameters that rclpy declares, with their defaults"""


def calls(path: Path, function: str) -> list[ast.Call]:
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "id", "") == function]


def arguments(path: Path) -> dict[str, ast.Call]:
    return {ast.literal_eval(call.args[0]): call for call in calls(path, "DeclareLaunchArgument")}


def keyword(call: ast.Call, name: str) -> Any:
    [value] = [entry.value for entry in call.keywords if entry.arg == name]
    return ast.literal_eval(value)


def declared(*files: str) -> dict[str, Any]:
    """Parameters with their defaults, of all `declare` calls in these files of the nodes."""
    found = [call for file in files for call in calls(NODES / file, "declare")]
    return {ast.literal_eval(call.args[1]): ast.literal_eval(call.args[2]) for call in found}


SHARED = declared("adapters/node_main.py") | OF_ROS
PROFILE = declared("adapters/parameters.py")
OF_NODE = {
    "policy_node": declared("nodes/policy_node.py", "adapters/server_access.py") | PROFILE | SHARED,
    "arm_node": declared("nodes/arm_node.py", "adapters/teleop_topics.py") | PROFILE | SHARED,
    "episode_node": declared("nodes/episode_node.py") | SHARED,
    "sim_arm_node": declared("nodes/sim_arm_node.py") | PROFILE | SHARED,
}
ROBOT_SIDE = OF_NODE["policy_node"] | OF_NODE["arm_node"] | OF_NODE["episode_node"]
NAMED = {"server_address": "server"}


def node(nodes: list[Action], executable: str) -> Action:
    [found] = [each for each in nodes if each.executable == executable]
    return found


def test_both_files_are_there() -> None:
    assert FILES == [POLICY, SIM]


def test_policy_declares_what_a_ros_user_expects() -> None:
    assert set(arguments(POLICY)) >= EXPECTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_argument_is_described_and_has_a_default(path: Path) -> None:
    for name, call in arguments(path).items():
        assert {entry.arg for entry in call.keywords} >= {"default_value", "description"}, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_executable_is_installed(path: Path) -> None:
    cmake = (ROOT / "pirl_ros" / "CMakeLists.txt").read_text()
    for composed in ("true", "false"):
        for started in launched(path, "robot:=franka", f"composed:={composed}"):
            script = ROOT / "pirl_ros" / "scripts" / started.executable
            assert script.stat().st_mode & 0o111, f"{script} must be executable"
            assert f"scripts/{script.name}" in cmake
            assert (NODES / "nodes" / f"{script.name}.py").is_file()


def test_every_parameter_of_every_node_is_a_launch_argument_with_its_default_in_the_text() -> None:
    assert {NAMED.get(name, name) for name in ROBOT_SIDE} == set(arguments(POLICY)) - NOT_PARAMETERS
    both = arguments(SIM) | arguments(POLICY)
    for name, default in (OF_NODE["sim_arm_node"] | ROBOT_SIDE).items():
        call = both[NAMED.get(name, name)]
        assert keyword(call, "default_value") == "", f"{name}: a value here would count before a parameter file"
        text = str(default).lower() if isinstance(default, bool) else str(default)
        assert not default or keyword(call, "description").endswith(f"({text})"), name


def value_of(name: str, default: Any) -> str:
    """Something other than the default, as a user types it."""
    if isinstance(default, bool):
        return str(not default).lower()
    if isinstance(default, str):
        return {"mode": "explore", "encoding": "jpeg", "profile": str(LAUNCH / "params" / "franka.yaml")}.get(
            name, "007"
        )
    return str([7, 8, 9] if isinstance(default, list) else default + 1)


@pytest.mark.parametrize("composed", [True, False])
def test_what_is_given_reaches_each_node_that_declares_it_in_its_type(composed: bool) -> None:
    given = {name: value_of(name, default) for name, default in ROBOT_SIDE.items()}
    words = [f"{NAMED.get(name, name)}:={value}" for name, value in given.items()]
    nodes = launched(POLICY, f"composed:={str(composed).lower()}", *words)
    apart = {name: expected for name, expected in OF_NODE.items() if name != "sim_arm_node"}
    of_executable = {"robot_node": ROBOT_SIDE} if composed else apart
    assert {each.executable for each in nodes} == set(of_executable)
    for executable, expected in of_executable.items():
        sent = {name: yaml.safe_load(text) for name, text in parameters(node(nodes, executable)).items()}
        assert set(sent) == set(expected)
        for name, default in expected.items():
            assert type(sent[name]) is type(default), name
            assert sent[name] == (given[name] if isinstance(default, str) else yaml.safe_load(given[name])), name


def test_what_is_not_given_is_not_sent() -> None:
    assert set(parameters(launched(POLICY, "robot:=franka")[0])) == {"profile"}
    simulated = launched(SIM)
    assert set(parameters(node(simulated, "robot_node"))) == {"profile", "use_sim_time"}
    assert set(parameters(node(simulated, "sim_arm_node"))) == {"profile"}


TEXTS = ["007", "yes", "1e3", "0x10", "12:30", "null", "~", "it's", "[1]", "a: b", "2026-11-30"]
"""that YAML would read as something else, rcl's YAML among them: it takes 1e3 for a number"""


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_sent_in_quotes(text: str) -> None:
    nodes = launched(SIM, *(f"{name}:={text}" for name in ("robot_id", "alias", "task")))
    sent = parameters(node(nodes, "robot_node")) | {"task": parameters(node(nodes, "sim_arm_node"))["task"]}
    for name in ("robot_id", "alias", "task"):
        assert yaml.safe_load(sent[name]) == text
        assert sent[name][0] == sent[name][-1] == "'"


@pytest.mark.ros
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_as_a_text(ros: Any, text: str) -> None:
    from rclpy.node import Node

    def received(*words: str) -> object:
        receiver = Node("r", cli_args=["--ros-args", *words], automatically_declare_parameters_from_overrides=True)
        value = receiver.get_parameter("robot_id").value
        receiver.destroy_node()
        return value

    assert received(*node(launched(SIM, f"robot_id:={text}"), "robot_node").ros_arguments) == text
    if text in ("007", "yes", "1e3"):
        assert received("-p", f"robot_id:={text}") != text, "or this test shows nothing"


@pytest.mark.parametrize(
    "wrong", ["dry_run:=ja", "log_level:=verbose", "mode:=exploring", "encoding:=gif", "composed:=2"]
)
def test_a_value_outside_a_closed_set_is_rejected(wrong: str) -> None:
    with pytest.raises(RuntimeError, match="is not one of"):
        launched(POLICY, "robot:=franka", wrong)


def test_no_arm_is_taken_for_granted() -> None:
    with pytest.raises(RuntimeError, match="robot:=NAME"):
        launched(POLICY)
    for words in ("robot:=franka", "robot:=franka.yaml", f"profile:={LAUNCH}/params/franka.yaml"):
        sent = parameters(launched(POLICY, words)[0])["profile"]
        load_profile(yaml.safe_load(sent))


def test_a_simulated_arm_runs_by_its_own_time_and_ends_with_its_simulator() -> None:
    nodes = launched(SIM)
    profile = load_profile(yaml.safe_load(parameters(node(nodes, "sim_arm_node"))["profile"]))
    assert profile.simulation_only
    assert parameters(node(nodes, "robot_node"))["use_sim_time"] == "true"
    assert type(node(nodes, "sim_arm_node").on_exit).__name__ == "Shutdown"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_ros_parameter_file_reaches_every_node(path: Path) -> None:
    for each in launched(path, "robot:=franka", "params_file:=mine.yaml"):
        words = each.ros_arguments
        assert words[words.index("--params-file") + 1] == "mine.yaml"
        assert words.index("--params-file") < words.index("-p"), "what is given counts before the file"


def test_an_argument_that_nothing_declares_is_named(caplog: pytest.LogCaptureFixture) -> None:
    launched(POLICY, "robot:=franka", "dryrun:=true", "server_address:=gpu:50051", "beans:=3")
    assert re.findall(r"'(\w+)' is known.*?(\w+):=", caplog.text) == [
        ("dryrun", "dry_run"),
        ("server_address", "server"),
    ]
    caplog.clear()
    launched(SIM, "task:=fake", "dry_run:=true")
    assert caplog.text == ""


@pytest.mark.ros
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_ros2_launch_accepts_them(path: Path) -> None:
    if importlib.util.find_spec("launch_ros") is None:
        pytest.skip("`launch_ros` comes with an apt ROS 2 only: no wheel provides it")
    command = ["ros2", "launch", "pirl_ros", path.name, "--show-args"]
    shown = completed(command, check=True, limit_s=60).stdout
    for name in arguments(path):
        assert f"'{name}'" in shown

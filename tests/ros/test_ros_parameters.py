"""Parameters as users give them: on the command line, in files, later; and processes that end when they cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patience import output_of

pytestmark = pytest.mark.ros

SHORT = "must be a text, write it in quotes"


@pytest.fixture
def declared(ros: Any) -> Iterator[Any]:
    """A function that gives `words` to a node and declares `name` there with a default."""
    from rclpy.node import Node

    from pirl_ros.adapters.parameters import declare

    nodes = []

    def of(name: str, default: Any, *words: str, **named: Any) -> Any:
        given = [part for word in words for part in ("-p", word)]
        nodes.append(Node("n", cli_args=["--ros-args", *given], automatically_declare_parameters_from_overrides=True))
        return declare(nodes[-1], name, default, "for a test", **named)

    yield of
    for node in nodes:
        node.destroy_node()


@pytest.mark.parametrize(
    ("default", "given", "value"),
    [
        (2.0, "3", 3.0),
        (2.0, "3.5", 3.5),
        (4, "5.0", 5),
        ([1, 0, 4], "[2, 1, 0]", [2, 1, 0]),
        ([1, 0, 4], "[2.0, 1.0, 0.0]", [2, 1, 0]),
        ([0], "3", [3]),
        (False, "true", True),
        ("robot", "'007'", "007"),
        ("robot", "''", ""),
    ],
)
def test_what_is_given_has_the_parameters_type(declared: Any, default: Any, given: str, value: Any) -> None:
    got = declared("x", default, f"x:={given}")
    assert (list(got) if isinstance(value, list) else got) == value
    assert isinstance(default, list) or type(got) is type(default)


@pytest.mark.parametrize(
    ("default", "given", "words"),
    [
        ("robot", "7", SHORT),
        ("robot", "1e3", SHORT),
        ("robot", "yes", SHORT),
        (False, "ja", "must be true or false; got ja"),
        (False, "1", "must be true or false; got 1"),
        (2.0, "fast", "must be a finite number; got fast"),
        (2.0, "true", "must be a finite number; got true"),
        (2.0, ".nan", "must be a finite number; got nan"),
        (2.0, ".inf", "must be a finite number; got inf"),
        (4, ".inf", "must be a whole number; got inf"),
        ([1, 0, 4], "[.inf, 0.0, 4.0]", "list of whole numbers"),
        (4, "4.5", "must be a whole number; got 4.5"),
        ([1, 0, 4], "[1.5, 0.0, 4.0]", "list of whole numbers"),
    ],
)
def test_what_has_another_type_is_named_with_the_fix(declared: Any, default: Any, given: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"parameter 'x' .*{words}") as raised:
        declared("x", default, f"x:={given}")
    assert "\n" not in str(raised.value)


def test_what_is_not_given_or_out_of_range(declared: Any) -> None:
    assert declared("x", 2.0, "y:=3.0") == 2.0
    with pytest.raises(ValueError, match=r"parameter 'x' must be in \[0.5, 3\], got 4.0"):
        declared("x", 2.0, "x:=4", between=(0.5, 3.0))


def test_a_parameter_that_no_node_knows_is_named(ros: Any) -> None:
    from rclpy.node import Node

    from pirl_ros.adapters.parameters import declare, drop_unknown

    nodes = []
    for name, own in (("a", "dry_run"), ("b", "speed")):
        words = ["-p", "dryrun:=true", "-p", "speed:=2.0", "-p", "use_sim_time:=true"]
        nodes.append(Node(name, cli_args=["--ros-args", *words], automatically_declare_parameters_from_overrides=True))
        declare(nodes[-1], own, 1.0 if own == "speed" else False, "for a test")
    [said] = drop_unknown(nodes)
    assert said == "no node of this process has a parameter 'dryrun', it is ignored, did you mean 'dry_run'?"
    assert not nodes[0].has_parameter("dryrun")
    assert not nodes[0].has_parameter("speed"), "another node's"
    assert nodes[1].get_parameter("speed").value == 2.0
    assert nodes[0].get_parameter("use_sim_time").value is True
    for node in nodes:
        node.destroy_node()


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("policy_node", {"robot_id": "7"}, "parameter 'robot_id' must be a text"),
        ("arm_node", {"dry_run": "ja"}, "parameter 'dry_run' must be true or false"),
        ("robot_node", {"profile": "nowhere.yaml"}, "nowhere.yaml does not exist"),
        ("policy_node", {"mode": "exploring"}, "mode 'exploring' is not known"),
        ("sim_arm_node", {"task": "'1e3'", "simulator": "fake_simulator:make_robot"}, "unknown task '1e3'"),
        ("run_episodes", {"episodes": "many"}, "parameter 'episodes' must be a whole number"),
    ],
    ids=["text", "truth", "profile", "mode", "task", "number"],
)
def test_a_process_that_cannot_start_ends_with_status_one(
    probe: Any, name: str, given: dict[str, str], words: str
) -> None:
    process = probe.start(name, **given)
    said = output_of(process, 30)[0]
    assert process.returncode == 1
    assert words in said
    assert "Traceback" not in said


def test_without_autostart_the_process_stays_and_can_be_mended(probe: Any, profile_path: Path) -> None:
    from lifecycle_msgs.msg import State, Transition
    from lifecycle_msgs.srv import ChangeState
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    def set_text(name: str, value: str) -> Any:
        text = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value=value)
        request = [Parameter(name=name, value=text)]
        return probe.call(SetParameters, "policy_node/set_parameters", parameters=request).results[0]

    probe.start("policy_node", autostart=False, profile="''", robot_id="no/id")
    configure = Transition(id=Transition.TRANSITION_CONFIGURE)
    assert not probe.call(ChangeState, "policy_node/change_state", transition=configure).success
    for name, value in {"profile": str(profile_path), "robot_id": "arm-1"}.items():
        assert set_text(name, value).successful
    # What the first attempt made is gone: the second makes it again.
    assert probe.change("policy_node", Transition.TRANSITION_CONFIGURE) == State.PRIMARY_STATE_INACTIVE
    late = set_text("robot_id", "arm-2")
    assert not late.successful
    assert "'robot_id' is read when policy_node is configured" in late.reason
    assert not set_text("autostart", "true").successful


@pytest.mark.parametrize("content", ["profile", "mixed"])
def test_a_file_that_is_no_ros_parameter_file_is_named(
    probe: Any, profile_path: Path, tmp_path: Path, content: str
) -> None:
    mixed = tmp_path / "mixed.yaml"
    mixed.write_text("/**:\n  ros__parameters:\n    joy_axes: [1.0, 2]\n")
    path = profile_path if content == "profile" else mixed
    command = [str(probe.library / "arm_node"), "--ros-args", "--params-file", str(path)]
    process = probe.run(command)
    said = output_of(process, 30)[0]
    assert process.returncode == 1
    assert "Traceback" not in said
    assert ("a robot profile is given as profile:=FILE" if content == "profile" else "line_num 3") in said


def test_a_ros_parameter_file_is_read_and_what_is_given_beside_it_counts_first(
    probe: Any, profile_path: Path, tmp_path: Path
) -> None:
    from rcl_interfaces.srv import GetParameters

    file = tmp_path / "params.yaml"
    file.write_text(
        "/**/policy_node:\n  ros__parameters: {robot_id: from_file, alias: from_file, timeout_s: 3}\n"
        "/**/episode_node:\n  ros__parameters: {operator_reset: true}\n"
    )
    command = [str(probe.library / "robot_node"), "--ros-args", "-r", f"__ns:={probe.namespace}"]
    command += ["--params-file", str(file), "-p", f"profile:={profile_path}", "-p", "robot_id:='007'"]
    probe.run([*command, "-p", "use_sim_time:=true"])

    def values(node: str, *names: str) -> list[Any]:
        found = probe.call(GetParameters, f"{node}/get_parameters", names=list(names)).values
        return [value.string_value or value.double_value or value.bool_value for value in found]

    assert values("policy_node", "robot_id", "alias", "timeout_s") == ["007", "from_file", 3.0]
    assert values("episode_node", "operator_reset") == [True]

"""The robot side of one arm: policy_node, arm_node, episode_node. Its driver and cameras are launched elsewhere.

An argument that is empty is not passed on: what the ROS parameter file says counts then, or the node's own default. One
that is given counts before both.
"""

import difflib
from pathlib import Path

import launch.logging
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription

PROFILES = ", ".join(sorted(path.stem for path in (Path(__file__).parent / "params").glob("*.yaml")))
SWITCH = ["", "true", "false", "True", "False"]
SHARED = {"autostart": bool, "use_sim_time": bool}
ROBOT = {"profile": str, "use_cameras": bool}
POLICY = ROBOT | {
    "server_address": str, "robot_id": str, "mode": str, "alias": str, "token_file": str, "tls_ca": str,
    "tls_cert": str, "tls_key": str, "encoding": str, "timeout_s": float,
}  # fmt: skip
ARM = ROBOT | {
    "dry_run": bool, "speed_scale": float, "joy_axes": list, "joy_deadman": int, "joy_speed": float,
    "step_on_command": bool,
}  # fmt: skip
EPISODE = {"max_duration_s": float, "undo_window_s": float, "patience_s": float, "operator_reset": bool}
ARGUMENT_OF = {"server_address": "server"}
"""launch argument of a parameter, where it has another name"""


def arguments() -> list[DeclareLaunchArgument]:
    """Every launch argument."""
    return [
        DeclareLaunchArgument("robot", default_value="", description=f"robot profile of launch/params: {PROFILES}"),
        DeclareLaunchArgument("profile", default_value="", description="robot profile by path; instead of robot"),
        DeclareLaunchArgument("params_file", default_value="", description="ROS parameter file, node: ros__parameters"),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of this arm"),
        DeclareLaunchArgument(
            "composed", default_value="true", description="all nodes in one process", choices=SWITCH[1:]
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            description="least severity that is logged",
            choices=["debug", "info", "warn", "error", "fatal"],
        ),
        *of_the_policy(),
        *of_the_arm(),
    ]


def of_the_policy() -> list[DeclareLaunchArgument]:
    """Return those of policy_node."""
    return [
        DeclareLaunchArgument("server", default_value="", description="policy server, host:port (127.0.0.1:50051)"),
        DeclareLaunchArgument("token_file", default_value="", description="file with this robot's token"),
        DeclareLaunchArgument("tls_ca", default_value="", description="CA of the server's certificate (PEM)"),
        DeclareLaunchArgument("tls_cert", default_value="", description="this robot's certificate (PEM), for mTLS"),
        DeclareLaunchArgument("tls_key", default_value="", description="its key (PEM)"),
        DeclareLaunchArgument(
            "encoding",
            default_value="",
            description="image encoding to the server (auto)",
            choices=["", "auto", "rgb8", "jpeg", "png"],
        ),
        DeclareLaunchArgument("timeout_s", default_value="", description="time-out of a call to the server, s (2.0)"),
        DeclareLaunchArgument("robot_id", default_value="", description="name on the server, one per arm (robot)"),
        DeclareLaunchArgument(
            "mode",
            default_value="",
            description="whether actions are sampled with noise; empty: server's choice",
            choices=["", "explore", "deterministic"],
        ),
        DeclareLaunchArgument("alias", default_value="", description="alias of the served policy; empty: production"),
    ]


def of_the_arm() -> list[DeclareLaunchArgument]:
    """Return those of arm_node and episode_node, and of all nodes."""
    return [
        DeclareLaunchArgument(
            "use_cameras", default_value="", description="false: state-only policy (true)", choices=SWITCH
        ),
        DeclareLaunchArgument(
            "dry_run", default_value="", description="true: send nothing to the controllers (false)", choices=SWITCH
        ),
        DeclareLaunchArgument("speed_scale", default_value="", description="part of the velocity limits to use (1.0)"),
        DeclareLaunchArgument("joy_axes", default_value="", description="joystick axes for x, y, z ([1, 0, 4])"),
        DeclareLaunchArgument("joy_deadman", default_value="", description="joystick button to hold (4)"),
        DeclareLaunchArgument("joy_speed", default_value="", description="m/s of the tool at full deflection (0.1)"),
        DeclareLaunchArgument(
            "step_on_command", default_value="", description="true: the simulator waits for us (false)", choices=SWITCH
        ),
        DeclareLaunchArgument("max_duration_s", default_value="", description="time limit of a goal, s (60.0)"),
        DeclareLaunchArgument("undo_window_s", default_value="", description="to retract a label, s (2.0)"),
        DeclareLaunchArgument("patience_s", default_value="", description="time-out for nodes and server, s (10.0)"),
        DeclareLaunchArgument(
            "operator_reset",
            default_value="",
            description="true: goals wait for ~/scene_ready (false)",
            choices=SWITCH,
        ),
        DeclareLaunchArgument(
            "use_sim_time", default_value="", description="take time from /clock (false)", choices=SWITCH
        ),
        DeclareLaunchArgument(
            "autostart", default_value="", description="configure and activate at start (true)", choices=SWITCH
        ),
    ]


def profile_path(context: LaunchContext) -> str:
    """Return the profile's path. RuntimeError: none is named, and no arm is taken for granted."""
    values = context.launch_configurations
    if values["profile"]:
        return values["profile"]
    if not values["robot"]:
        raise RuntimeError(f"which arm? robot:=NAME of a profile in launch/params ({PROFILES}) or profile:=FILE")
    folder = [FindPackageShare("pirl_ros"), "launch", "params"]
    return PathJoinSubstitution([*folder, f"{values['robot'].removesuffix('.yaml')}.yaml"]).perform(context)


def given(context: LaunchContext, parameters: dict[str, type]) -> list[str]:
    """Return ROS arguments for all parameters that are not empty.

    A text goes in quotes, or digits, yes or 1e3 would arrive as a number or a truth value.
    """
    words = []
    for name, kind in parameters.items():
        value = context.launch_configurations[ARGUMENT_OF.get(name, name)]
        if value and kind is str:
            value = "'" + value.replace("'", "''") + "'"
        words += ["-p", f"{name}:={value}"] if value else []
    return words


def warn_of_unknown(context: LaunchContext) -> None:
    """Name arguments on the command line that look like one of ours: launch itself ignores what nothing declares."""
    known = {argument.name for argument in arguments()}
    parameters = {parameter: argument for parameter, argument in ARGUMENT_OF.items() if parameter not in known}
    for name in (word.partition(":=")[0] for word in context.argv if ":=" in word):
        near = difflib.get_close_matches(name, [*known, *parameters], 1)
        if name not in known and near:
            said = f"no argument '{name}' is known, it is ignored: did you mean {parameters.get(near[0], near[0])}:=?"
            launch.logging.get_logger("pirl_ros").warning(said)


def nodes(context: LaunchContext) -> list[Node]:
    """Return the nodes, in one process or three. A file that includes this one finds the profile's path set."""
    warn_of_unknown(context)
    values = context.launch_configurations
    values["profile"] = profile_path(context)
    file = ["--params-file", values["params_file"]] if values["params_file"] else []

    def node(executable: str, parameters: dict[str, type]) -> Node:
        return Node(
            package="pirl_ros",
            executable=executable,
            name=None if executable == "robot_node" else executable,
            namespace=values["namespace"],
            output="screen",
            ros_arguments=["--log-level", values["log_level"], *file, *given(context, SHARED | parameters)],
        )

    if values["composed"].lower() == "true":
        return [node("robot_node", POLICY | ARM | EPISODE)]
    return [node("policy_node", POLICY), node("arm_node", ARM), node("episode_node", EPISODE)]


def generate_launch_description() -> LaunchDescription:
    """Return all arguments and the nodes."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=nodes)])

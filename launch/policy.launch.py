"""The robot side of one arm: policy_node, arm_node, episode_node. Its driver and cameras are launched elsewhere."""

from launch.actions import DeclareLaunchArgument
from launch.conditions import IfCondition, UnlessCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def arguments() -> list[DeclareLaunchArgument]:
    params = PathJoinSubstitution([FindPackageShare("pirl_ros"), "launch", "params"])
    profile = [params, "/", LaunchConfiguration("robot"), ".yaml"]
    return [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of this arm"),
        DeclareLaunchArgument("robot", default_value="panda_sim", description="name of a shipped robot profile"),
        DeclareLaunchArgument("params_file", default_value=profile, description="robot profile; overrides robot"),
        DeclareLaunchArgument("server", default_value="127.0.0.1:50051", description="policy server, host:port"),
        DeclareLaunchArgument("token_file", default_value="", description="file with this robot's token"),
        DeclareLaunchArgument("tls_ca", default_value="", description="CA of the server's certificate (PEM)"),
        DeclareLaunchArgument("tls_cert", default_value="", description="this robot's certificate (PEM), for mTLS"),
        DeclareLaunchArgument("tls_key", default_value="", description="its key (PEM)"),
        DeclareLaunchArgument("robot_id", default_value="robot", description="name on the server, one per arm"),
        DeclareLaunchArgument("mode", default_value="", description="explore, deterministic; empty: server's choice"),
        DeclareLaunchArgument("alias", default_value="", description="alias of the served policy; empty: production"),
        DeclareLaunchArgument("use_cameras", default_value="true", description="false: state-only policy"),
        DeclareLaunchArgument("dry_run", default_value="false", description="true: send nothing to the controllers"),
        DeclareLaunchArgument("composed", default_value="true", description="all nodes in one process"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="take time from /clock"),
        DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
        DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at start"),
    ]


def generate_launch_description() -> LaunchDescription:
    shared = {
        "profile": LaunchConfiguration("params_file"),
        "use_cameras": LaunchConfiguration("use_cameras"),
        "autostart": LaunchConfiguration("autostart"),
        "use_sim_time": LaunchConfiguration("use_sim_time"),
    }
    policy = {
        "server_address": LaunchConfiguration("server"),
        "robot_id": LaunchConfiguration("robot_id"),
        "mode": LaunchConfiguration("mode"),
        "alias": LaunchConfiguration("alias"),
        "token_file": LaunchConfiguration("token_file"),
        "tls_ca": LaunchConfiguration("tls_ca"),
        "tls_cert": LaunchConfiguration("tls_cert"),
        "tls_key": LaunchConfiguration("tls_key"),
    }
    arm = {"dry_run": LaunchConfiguration("dry_run")}
    common = {
        "package": "pirl_ros",
        "namespace": LaunchConfiguration("namespace"),
        "output": "screen",
        "ros_arguments": ["--log-level", LaunchConfiguration("log_level")],
    }
    together = IfCondition(LaunchConfiguration("composed"))
    apart = UnlessCondition(LaunchConfiguration("composed"))
    return LaunchDescription(
        [
            *arguments(),
            Node(executable="robot_node", parameters=[shared, policy, arm], condition=together, **common),
            Node(executable="policy_node", name="policy_node", parameters=[shared, policy], condition=apart, **common),
            Node(executable="arm_node", name="arm_node", parameters=[shared, arm], condition=apart, **common),
            Node(executable="episode_node", name="episode_node", parameters=[shared], condition=apart, **common),
        ]
    )

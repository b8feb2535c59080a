"""The robot side of one arm: policy_node and arm_node. The arm's driver and cameras are launched elsewhere."""

from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    params = PathJoinSubstitution([FindPackageShare("pirl_ros"), "launch", "params"])
    shared = {
        "profile": LaunchConfiguration("params_file"),
        "use_cameras": LaunchConfiguration("use_cameras"),
        "autostart": LaunchConfiguration("autostart"),
        "use_sim_time": LaunchConfiguration("use_sim_time"),
    }
    policy = {
        "server_address": LaunchConfiguration("server_address"),
        "robot_id": LaunchConfiguration("robot_id"),
        "mode": LaunchConfiguration("mode"),
    }
    common = {
        "package": "pirl_ros",
        "namespace": LaunchConfiguration("namespace"),
        "output": "screen",
        "ros_arguments": ["--log-level", LaunchConfiguration("log_level")],
    }
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="prefix of all topics of this arm"),
            DeclareLaunchArgument("robot", default_value="panda_sim", description="name of a shipped robot profile"),
            DeclareLaunchArgument(
                "params_file",
                default_value=[params, "/", LaunchConfiguration("robot"), ".yaml"],
                description="robot profile; overrides robot",
            ),
            DeclareLaunchArgument("server_address", default_value="127.0.0.1:50051", description="host:port"),
            DeclareLaunchArgument("robot_id", default_value="robot", description="name on the server, one per arm"),
            DeclareLaunchArgument(
                "mode", default_value="", description="explore, deterministic; empty: server's choice"
            ),
            DeclareLaunchArgument("use_cameras", default_value="true", description="false: state-only policy"),
            DeclareLaunchArgument("use_sim_time", default_value="false", description="take time from /clock"),
            DeclareLaunchArgument("log_level", default_value="info", description="debug, info, warn or error"),
            DeclareLaunchArgument("autostart", default_value="true", description="configure and activate at start"),
            Node(executable="policy_node", name="policy_node", parameters=[shared, policy], **common),
            Node(executable="arm_node", name="arm_node", parameters=[shared], **common),
        ]
    )

"""A simulated arm with its robot side: sim_arm_node, and all of policy.launch.py."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node, SetRemap
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    folder = PathJoinSubstitution([FindPackageShare("pirl_ros"), "launch"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("task", default_value="PushCube-v1", description="simulated task"),
            DeclareLaunchArgument(
                "simulator",
                default_value="pirl_sim.maniskill.sim_robot:make_robot",
                description="module:function of the arm",
            ),
            DeclareLaunchArgument(
                "step_on_command", default_value="false", description="true: faster than real time, without its delays"
            ),
            DeclareLaunchArgument("use_sim_time", default_value="true", description="stamps by the simulated time"),
            # In its namespace each simulated robot has a clock of its own; without one it is /clock.
            SetRemap("/clock", "clock"),
            # declares every argument that is used below and not declared here
            IncludeLaunchDescription(PathJoinSubstitution([folder, "policy.launch.py"])),
            Node(
                package="pirl_ros",
                executable="sim_arm_node",
                name="sim_arm_node",
                namespace=LaunchConfiguration("namespace"),
                output="screen",
                ros_arguments=["--log-level", LaunchConfiguration("log_level")],
                parameters=[
                    {
                        "profile": LaunchConfiguration("params_file"),
                        "use_cameras": LaunchConfiguration("use_cameras"),
                        "task": LaunchConfiguration("task"),
                        "simulator": LaunchConfiguration("simulator"),
                        "step_on_command": LaunchConfiguration("step_on_command"),
                        "autostart": LaunchConfiguration("autostart"),
                    }
                ],
            ),
        ]
    )

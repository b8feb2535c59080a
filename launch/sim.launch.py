"""A simulated arm with its robot side: sim_arm_node, and all of policy.launch.py."""

from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction, Shutdown
from launch.substitutions import PathJoinSubstitution
from launch_ros.actions import Node, SetRemap
from launch_ros.substitutions import FindPackageShare

from launch import LaunchContext, LaunchDescription


def simulator(context: LaunchContext) -> list[Node]:
    """Return the simulated arm; nothing else is worth running without it."""
    values = context.launch_configurations
    # In quotes: a task named by digits is a text too.
    texts = {name: values[name].replace("'", "''") for name in ("profile", "task", "simulator")}
    parameters = [f"{name}:='{text}'" for name, text in texts.items() if text]
    parameters += [
        f"{name}:={values[name]}" for name in ("step_on_command", "use_cameras", "autostart") if values[name]
    ]
    file = ["--params-file", values["params_file"]] if values["params_file"] else []
    words = [word for parameter in parameters for word in ("-p", parameter)]
    return [
        Node(
            package="pirl_ros",
            executable="sim_arm_node",
            name="sim_arm_node",
            namespace=values["namespace"],
            output="screen",
            ros_arguments=["--log-level", values["log_level"], *file, *words],
            on_exit=Shutdown(reason="the simulated arm has ended"),
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return all arguments and the nodes."""
    folder = PathJoinSubstitution([FindPackageShare("pirl_ros"), "launch"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("task", default_value="", description="simulated task (PushCube-v1)"),
            DeclareLaunchArgument(
                "simulator",
                default_value="",
                description="module:function of the arm (pirl_sim.maniskill.sim_robot:make_robot)",
            ),
            DeclareLaunchArgument("robot", default_value="panda_sim", description="robot profile by name"),
            DeclareLaunchArgument(
                "step_on_command",
                default_value="",
                description="true: faster than real time, without its delays (false)",
                choices=["", "true", "false", "True", "False"],
            ),
            DeclareLaunchArgument("use_sim_time", default_value="true", description="stamps by the simulated time"),
            # In its namespace each simulated robot has a clock of its own; without one it is /clock.
            SetRemap("/clock", "clock"),
            # declares every argument that is used below and not declared here
            IncludeLaunchDescription(PathJoinSubstitution([folder, "policy.launch.py"])),
            OpaqueFunction(function=simulator),
        ]
    )

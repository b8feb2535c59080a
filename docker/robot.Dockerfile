# The robot side on the official ROS 2 Jazzy base, for x86_64 and aarch64, without torch, server or simulator:
#   docker build -f docker/robot.Dockerfile -t pirl-robot .
#   docker run --rm --net host --ipc host pirl-robot ros2 launch pirl_ros policy.launch.py robot:=franka server:=GPU_HOST:50051
# No container engine runs in CI: this file is read by a test and was not built there. What it builds is what
# docs/how-to/my-arm-in-30-minutes.md builds on an apt ROS 2.
FROM ros:jazzy-ros-base
ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
WORKDIR /opt/pirl

COPY msg/ msg/
COPY pirl_ros/ pirl_ros/
COPY launch/ launch/
RUN apt-get update && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths msg pirl_ros --ignore-src --rosdistro "$ROS_DISTRO" -y && rm -rf /var/lib/apt/lists/*
RUN . "/opt/ros/$ROS_DISTRO/setup.sh" && colcon build --base-paths msg pirl_ros --cmake-args -DBUILD_TESTING=OFF

ENTRYPOINT ["bash", "-c", ". install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "pirl_ros", "policy.launch.py"]

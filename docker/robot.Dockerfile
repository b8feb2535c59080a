# The robot side, without torch, server or simulator: `docker build -f docker/robot.Dockerfile -t pirl-robot .`
# ROS comes from wheels, which exist for x86_64 only; on another robot build the two packages against its own ROS.
# The steps are those of `make setup`. No container engine runs in CI: this file is read by a test and was not built there.
FROM debian:12-slim
ENV PIP_NO_CACHE_DIR=1 PIRL_COMPILE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
WORKDIR /opt/pirl

COPY docker/install_system.sh docker/
RUN apt-get update && bash docker/install_system.sh && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md ./
COPY docker/install_python.sh docker/constraints.txt docker/
COPY msg/ msg/
COPY pirl_ros/ pirl_ros/
RUN bash docker/install_python.sh ros

COPY docker/build_ros.sh docker/ros_env.sh docker/
COPY launch/ launch/
RUN bash docker/build_ros.sh

ENTRYPOINT ["bash", "-c", ". docker/ros_env.sh && exec \"$@\"", "--"]
CMD [".ros/install/pirl_ros/lib/pirl_ros/policy_node", "--ros-args", "-p", "profile:=launch/params/panda_sim.yaml"]

# The simulated arm as ROS nodes, in place of a real one: `docker build -f docker/sim.Dockerfile -t pirl-sim .`
# The steps are those of `make setup`. No container engine runs in CI: this file is read by a test and was not built there.
FROM debian:12-slim
ENV PIP_NO_CACHE_DIR=1 PIRL_COMPILE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 LP_NUM_THREADS=1
WORKDIR /opt/pirl

COPY docker/install_system.sh docker/
RUN apt-get update && bash docker/install_system.sh && rm -rf /var/lib/apt/lists/*

# ManiSkill brings torch. URL of the index with the build you want. Empty: a CPU build where pip's index has one.
ARG PIRL_TORCH_INDEX=
COPY pyproject.toml README.md ./
COPY docker/install_python.sh docker/constraints.txt docker/
COPY msg/ msg/
COPY pirl_ros/ pirl_ros/
COPY sim/ sim/
RUN bash docker/install_python.sh sim,ros

COPY docker/build_ros.sh docker/ros_env.sh docker/
COPY launch/ launch/
RUN bash docker/build_ros.sh

ENTRYPOINT ["bash", "-c", ". docker/ros_env.sh && exec \"$@\"", "--"]
CMD [".ros/install/pirl_ros/lib/pirl_ros/sim_arm_node", "--ros-args", "-p", "profile:=launch/params/panda_sim.yaml"]

# The policy server with its jobs, simulator included: `docker build -f docker/server.Dockerfile -t pirl-server .`
# The steps are those of `make setup`. No container engine runs in CI: this file is read by a test and was not built there.
FROM debian:12-slim
ENV PIP_NO_CACHE_DIR=1 PIRL_COMPILE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1
WORKDIR /opt/pirl

COPY docker/install_system.sh docker/
RUN apt-get update && bash docker/install_system.sh && rm -rf /var/lib/apt/lists/*

# URL of the index with the torch build you want. Empty: a CPU build where pip's index has one, for a build sees no GPU.
ARG PIRL_TORCH_INDEX=
COPY pyproject.toml README.md ./
COPY docker/install_python.sh docker/constraints.txt docker/
COPY msg/ msg/
COPY pirl_ros/ pirl_ros/
COPY server/ server/
COPY sim/ sim/
RUN bash docker/install_python.sh server,sim

# Whoever reaches the ports can start jobs: not as root.
RUN useradd --create-home pirl && install -d -o pirl /var/lib/pirl
USER pirl
VOLUME /var/lib/pirl
EXPOSE 50051 8000 8002
ENTRYPOINT [".venv/bin/pirl"]
CMD ["serve", "server/pirl_server/checkpoints/pushcube-base", "--root", "/var/lib/pirl"]

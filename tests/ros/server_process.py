"""A policy server as a process, to be killed: joint targets that sweep to and fro. Arguments: profile, port."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from real_arm import PERIOD_S, READY, WAYS
from scripted_server import ScriptedServer

from pirl_contract import ActionChunk
from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_contract.wire import codec
from pirl_ros.profile.profile import load_profile

HORIZON, EXECUTE, SPEED, REACH = 20, 8, 1.0, 0.3


class SweepingServer(ScriptedServer):
    """Goes on from where the arm is seen, and turns at the end of its reach."""

    side = 1.0

    def StartEpisode(self, request: pb.StartEpisodeRequest, context: Any) -> pb.StartEpisodeReply:
        return pb.StartEpisodeReply(episode_id=uuid.uuid4().hex[:8], policy_version="v1")

    def Infer(self, request: pb.InferRequest, context: Any) -> pb.InferReply:
        observation = codec.observation_from_proto(request.observation, request.robot_id)
        joints = observation.state[:7]
        if abs(joints[0] - READY[0]) > REACH:
            self.side = -float(np.sign(joints[0] - READY[0]))
        ways = self.side * SPEED * PERIOD_S * np.arange(1, HORIZON + 1)[:, None] * WAYS
        actions = np.hstack([joints + ways, np.ones((HORIZON, 1))]).astype(np.float32)
        return codec.chunk_to_proto(
            ActionChunk(actions, PERIOD_S, f"c{request.sequence}", "v1", 0, EXECUTE), request.sequence
        )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def serve(probe: Any, profile: Path, port: int) -> subprocess.Popen[str]:
    """Start this file as a process of the probe and wait until it serves."""
    server: subprocess.Popen[str] = probe.run([sys.executable, __file__, str(profile), str(port)])
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"
    return server


def kill(probe: Any, server: subprocess.Popen[str]) -> None:
    """Kill it; the probe misses it no more."""
    server.send_signal(signal.SIGKILL)
    server.wait()
    probe.processes.remove(server)
    assert server.stdout is not None
    server.stdout.close()


def main() -> None:
    """Serve until a signal."""
    server = grpc.server(ThreadPoolExecutor(2))
    policy_pb2_grpc.add_PolicyServiceServicer_to_server(SweepingServer(load_profile(sys.argv[1]).contract), server)
    assert server.add_insecure_port(f"127.0.0.1:{sys.argv[2]}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()

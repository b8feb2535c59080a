"""The policy service: one thread owns the device, gRPC threads wait for it, a recorder writes the episodes."""

from pirl_server.serving.engine import Engine, Inference
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.refusals import BusyError, ExpiredError, NoPolicyError, SupersededError
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService

__all__ = [
    "BusyError",
    "Engine",
    "ExpiredError",
    "Inference",
    "NoPolicyError",
    "PolicyService",
    "Recorder",
    "SupersededError",
    "start_grpc",
]

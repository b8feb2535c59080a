"""The policy service: one thread owns the device, gRPC threads wait for it, a recorder writes the episodes."""

from pirl_server.serving.deployment import Deployment
from pirl_server.serving.engine import Engine, Inference
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.refusals import BusyError, ExpiredError, NoPolicyError, StoppedError, SupersededError
from pirl_server.serving.router import Router
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService
from pirl_server.serving.shadow import Shadow, ShadowReport

__all__ = [
    "BusyError",
    "Deployment",
    "Engine",
    "ExpiredError",
    "Inference",
    "NoPolicyError",
    "PolicyService",
    "Recorder",
    "Router",
    "Shadow",
    "ShadowReport",
    "StoppedError",
    "SupersededError",
    "start_grpc",
]

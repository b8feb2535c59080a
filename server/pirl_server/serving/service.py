"""The policy service of policy.proto: unary calls and sessions, handled by the same functions."""

# ruff: noqa: N802  (policy.proto names the methods)
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_server.serving.camera_codecs import CameraCodecs
from pirl_server.serving.connections import RobotConnections
from pirl_server.serving.engine import Engine
from pirl_server.serving.episode_handler import EpisodeCalls
from pirl_server.serving.exploration import Exploration
from pirl_server.serving.grpc_status import answers_with_status
from pirl_server.serving.infer_handler import Caller, InferHandler
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.router import MAX_WAIT_S, Dispatcher, Router
from pirl_server.serving.session import Calls, Incoming, Session

DISK_THREADS = 4
"""ends and labels of episodes that sessions wait for at the same time"""


class PolicyService(policy_pb2_grpc.PolicyServiceServicer):
    """One engine for all robots; `explore` is the sampling mode of robots that ask for none."""

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        explore: bool,
        attendance: RobotConnections | None = None,
        max_sessions: int = 64,
        router: Router | None = None,
        check_rate: Callable[[str], None] | None = None,
        default_instruction: str = "",
        codecs: CameraCodecs | None = None,
    ) -> None:
        codecs = codecs or None  # raw images pass as they are
        router = router or Router(recorder.is_open)
        self.dispatcher = Dispatcher(engine, attendance, router, check_rate, default_instruction)
        """the way to the engine, for openpi's wire too"""
        self.attendance = self.dispatcher.connections
        self.max_sessions = max_sessions
        self.max_waiting = engine.queue_size + 1
        """requests that can wait for the device at the same time: the queue and the one on the device"""
        self._engine, self._episodes = engine, EpisodeCalls(recorder, codecs)
        self.exploration = Exploration(explore)
        self._inferring = InferHandler(self.dispatcher, self._episodes, recorder, self.exploration, router, codecs)
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="episodes")
        self._seats = threading.Semaphore(max_sessions)
        self._calls = Calls(
            at_once={
                "get_info": self._inferring.get_info,
                "start_episode": self._inferring.start_episode,
                "report_outcomes": self._episodes.report,
            },
            beside={"end_episode": self._episodes.end, "label_episode": self._episodes.label},
            begin=self._inferring.begin,
            finish=self._inferring.finish,
        )

    @property
    def ready(self) -> bool:
        """Whether a policy is loaded and warm."""
        return self._engine.current is not None

    @answers_with_status
    def GetInfo(self, request: pb.GetInfoRequest, context: grpc.ServicerContext) -> pb.GetInfoReply:
        """Say what is served; never waits for inference. It restarts a stopped robot without a session."""
        reply = self._inferring.get_info(request)
        self.attendance.lift_stop(request.robot_id, context.peer())
        return reply

    @answers_with_status
    def StartEpisode(self, request: pb.StartEpisodeRequest, context: grpc.ServicerContext) -> pb.StartEpisodeReply:
        """Open an episode after comparing the contracts."""
        return self._inferring.start_episode(request)

    @answers_with_status
    def Infer(self, request: pb.InferRequest, context: grpc.ServicerContext) -> pb.InferReply:
        """Answer one observation with one chunk; outcomes are kept even when the inference then fails."""
        remaining = context.time_remaining()
        wait_s = MAX_WAIT_S if remaining is None else min(remaining, MAX_WAIT_S)
        pending = self._inferring.begin(request, Caller(context.peer()), time.monotonic() + wait_s)
        context.add_callback(pending.answer.cancel)  # the call ended, by its client or its deadline: leave the queue
        return self._inferring.finish(pending)

    @answers_with_status
    def EndEpisode(self, request: pb.EndEpisodeRequest, context: grpc.ServicerContext) -> pb.EndEpisodeReply:
        """Publish or drop an episode; the reply comes when it is on the disk."""
        return self._episodes.end(request)

    @answers_with_status
    def ReportOutcomes(
        self, request: pb.ReportOutcomesRequest, context: grpc.ServicerContext
    ) -> pb.ReportOutcomesReply:
        """Take in what the robot did, without a question."""
        return self._episodes.report(request)

    @answers_with_status
    def LabelEpisode(self, request: pb.LabelEpisodeRequest, context: grpc.ServicerContext) -> pb.LabelEpisodeReply:
        """Say, or take back, how an episode went."""
        return self._episodes.label(request)

    def Session(self, requests: Iterator[Incoming], context: grpc.ServicerContext) -> Iterator[pb.SessionReply]:
        """Serve one robot for as long as its stream lives."""
        if not self._seats.acquire(blocking=False):
            # each session keeps a thread: beyond the limit they would take those of the other calls
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{self.max_sessions} sessions are open already")
        session = Session(self._calls, self.attendance, self._disk, context.peer(), self._seats.release)
        if not context.add_callback(session.close):  # it has ended already
            session.close()
            return iter(())
        return session.replies(requests)

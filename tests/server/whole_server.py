"""gRPC and REST of one server with tokens, whole but for its policy, and a robot that is driven by hand."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import httpx
from patience import patient

from pirl_contract.v1 import policy_pb2 as pb
from pirl_contract.v1 import policy_pb2_grpc
from pirl_server.api.application import create_api
from pirl_server.api.rest_listener import make_listener
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs.supervisor import Supervisor
from pirl_server.paths import TOKENS
from pirl_server.registry.ab_trials import AbTrials
from pirl_server.registry.promotion import Promoter
from pirl_server.registry.trial_limit import TrialLimit
from pirl_server.registry.versions import Registry
from pirl_server.rpc.interceptor import CallInterceptor, CallTracker
from pirl_server.security.access_control import AccessControl, CallAuthorizer
from pirl_server.security.connection_limits import Seats, listen
from pirl_server.security.permissions import PUBLIC_RPCS
from pirl_server.security.rate_limiter import Limiter
from pirl_server.security.tls import TlsFiles
from pirl_server.security.tokens import TokenFile
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Recorder
from pirl_server.serving.router import Router
from pirl_server.serving.server import start_grpc
from pirl_server.serving.service import PolicyService
from pirl_server.serving.shadow import Shadow
from pirl_server.telemetry.metrics import Latencies, Metrics
from pirl_server.telemetry.operations import Operations
from pirl_server.telemetry.robot_activity import RobotActivity
from pirl_server.watch.ab_runner import AbRunner
from pirl_server.watch.deciding import Deciding
from pirl_server.watch.episode_outcomes import EpisodeOutcomes
from pirl_server.watch.live_view import LiveView
from pirl_server.watch.monitor import PromotionMonitor


class Server:
    """gRPC and REST of one server, with tokens."""

    def __init__(
        self,
        root: Path,
        policy: Any,
        files: TlsFiles | None = None,
        rest_limiter: Limiter | None = None,
        stop_port: int = 0,
        job: str = "",
        versions: Sequence[str] = ("v1", "v2"),
        watched: bool = False,
    ) -> None:
        """`job`: script of jobs; the first of `versions` is in production; `watched`: bad ones go, any are compared."""
        self.engine, store = Engine(), EpisodeStore(root / "episodes")
        self.engine.swap(policy)
        self.recorder, self.registry = Recorder(store), Registry(root / "models")
        self.tokens, self.now = TokenFile(root / TOKENS), 0
        self.router = Router(self.recorder.is_open)
        audit = self.registry.audit_log
        self.gate = AccessControl(self.tokens, audit, Limiter(10**9, 3, clock=lambda: self.now))
        self.service = service = PolicyService(
            self.engine, self.recorder, explore=False, router=self.router, check_rate=self.gate.check_rate
        )
        self._add_versions(root, policy, versions)
        shadow = Shadow(self.engine, lambda report: None)
        self.deployment = Deployment(
            self.engine,
            self.registry,
            self.router,
            shadow,
            lambda version: type(policy)(version=version, mark=float(version[1:]), contract=policy.contract),
            TrialLimit(self.registry, 0.1, lambda: len(service.attendance.list())),
        )
        metrics, latencies = Metrics(self.engine, service.attendance, self.recorder), Latencies()
        activity = RobotActivity(self.recorder.robot_of)
        calls = CallTracker([metrics, latencies, activity])
        interceptor = CallInterceptor([calls, CallAuthorizer(self.gate, audit)], PUBLIC_RPCS)
        credentials = files.for_grpc() if files else None
        self.grpc, self.port = start_grpc(service, "127.0.0.1:0", credentials, [interceptor])
        self.jobs = Supervisor(root / "jobs", [sys.executable, "-c", job])
        Operations(root, self.jobs, self.recorder, self.gate, files).register(metrics.registry)
        self.api = create_api(
            jobs=self.jobs,
            registry=self.registry,
            episodes=store,
            engine=self.engine,
            deployment=self.deployment,
            check_job=lambda spec: None,
            grpc_port=self.port,
            attendance=service.attendance,
            gate=self.gate,
            metrics=metrics,
            latencies=latencies,
            limiter=rest_limiter,
            activity=activity,
            stop_port=stop_port,
            watch=self._watch if watched else lambda promoter: Deciding(),
        )
        self._listen(files)

    def _watch(self, promoter: Promoter) -> Deciding:
        view, outcomes = LiveView(self.engine, self.recorder.alterations), EpisodeOutcomes(self.recorder._store)
        registry = self.registry
        ab = AbRunner(registry, self.deployment, self.recorder._store, AbTrials(registry.root))
        return Deciding(PromotionMonitor(registry, promoter, view, outcomes.since, outcomes.known, registry.root), ab)

    def _add_versions(self, root: Path, policy: Any, versions: Sequence[str]) -> None:
        for version in versions:
            (source := root / version).mkdir()
            (source / "card.json").write_text('{"task": "push"}')
            self.registry.add(version, source, policy.contract)
        self.registry.point("production", versions[0], "test", "start")

    def _listen(self, files: TlsFiles | None) -> None:
        self.rest = make_listener(self.api, listen("127.0.0.1", 0, Seats("REST", 64)), files)
        self.thread = threading.Thread(target=self.rest.run)
        self.thread.start()
        while not self.rest.started:
            time.sleep(0.005)
        scheme = "https" if files else "http"
        self.url = f"{scheme}://127.0.0.1:{self.rest.port}"
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.stub: Any = policy_pb2_grpc.PolicyServiceStub(self.channel)

    def web(self, token: str = "", **settings: Any) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=patient(20), **settings)

    def close(self) -> None:
        self.channel.close()
        self.rest.should_exit = True
        self.thread.join()
        self.grpc.stop(None).wait()
        self.api.state.services.deciding.close()
        self.jobs.close()
        self.engine.close()
        self.recorder.close()

    def audited(self, event: str) -> list[dict[str, str]]:
        lines = map(json.loads, self.registry.audit_log.path.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


class Robot:
    """A session that is written to by hand."""

    def __init__(self, stub: Any, token: str, robot_id: str) -> None:
        self.requests: Queue[pb.SessionRequest | None] = Queue()
        self.replies = stub.Session(iter(self.requests.get, None), metadata=(("authorization", f"Bearer {token}"),))
        self.ask(1, pb.GetInfoRequest(robot_id=robot_id))
        assert next(self.replies).WhichOneof("reply") == "get_info"

    def ask(self, id: int, request: Any) -> None:
        name = {"GetInfoRequest": "get_info", "InferRequest": "infer"}[type(request).__name__]
        self.requests.put(pb.SessionRequest(id=id, **{name: request}))

    def close(self) -> None:
        self.requests.put(None)
        assert list(self.replies) == []


def problem(reply: httpx.Response, status: int) -> str:
    """Return what a problem says."""
    assert (reply.status_code, reply.headers["Content-Type"]) == (status, "application/problem+json"), reply.text
    return str(reply.json()["detail"])

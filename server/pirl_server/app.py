"""The composition root: builds the running server and shuts it down in the right order."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path

from fastapi import FastAPI

from pirl_server import job_main, malloc
from pirl_server.api.application import create_api
from pirl_server.api.dependencies import Services
from pirl_server.api.rest_listener import make_listener
from pirl_server.api.stop_listener import stop_door
from pirl_server.config.loop import Loop
from pirl_server.config.serve import Compile, ServeConfig
from pirl_server.episodes.retention import Janitor, Retention
from pirl_server.episodes.store import EpisodeStore
from pirl_server.jobs.leases import check_device
from pirl_server.jobs.supervisor import DEVICES, Supervisor
from pirl_server.loop.controller import Loops
from pirl_server.loop.server_world import ServerWorld
from pirl_server.openpi_wire.observation_keys import Keys
from pirl_server.openpi_wire.server import OpenpiServer, start_openpi
from pirl_server.paths import EPISODES, JOBS, MODELS, TOKENS
from pirl_server.policy.checkpoint import checkpoint_version, load_checkpoint
from pirl_server.policy.flow_policy import FlowPolicy
from pirl_server.registry.ab_trials import AbTrials
from pirl_server.registry.gate_rule import GateRule
from pirl_server.registry.promotion import PRODUCTION, Promoter
from pirl_server.registry.trial_limit import TrialLimit
from pirl_server.registry.versions import Registry
from pirl_server.root_lock import private_files, root_lock
from pirl_server.rpc.interceptor import CallInterceptor, CallTracker
from pirl_server.security.access_control import AccessControl, CallAuthorizer
from pirl_server.security.bind_address import check_bind, check_local
from pirl_server.security.connection_limits import Seats, listen
from pirl_server.security.file_limits import current_limit, raise_limit, shares
from pirl_server.security.permissions import PUBLIC_RPCS
from pirl_server.security.rate_limiter import Limiter
from pirl_server.security.tls import TlsFiles
from pirl_server.security.tokens import TokenFile
from pirl_server.serving.camera_codecs import CameraCodecs
from pirl_server.serving.deployment import Deployment
from pirl_server.serving.engine import Engine
from pirl_server.serving.recorder import Limits, Recorder
from pirl_server.serving.router import Dispatcher, Router
from pirl_server.serving.server import RobotServer, start_grpc
from pirl_server.serving.service import PolicyService
from pirl_server.serving.shadow import Shadow
from pirl_server.shutdown import Signals, Stopping
from pirl_server.telemetry.logs import CallLog, configure_logs
from pirl_server.telemetry.metrics import Latencies, Metrics
from pirl_server.telemetry.operations import Operations
from pirl_server.telemetry.robot_activity import RobotActivity
from pirl_server.telemetry.spans import spans_from_environment
from pirl_server.training.metrics_sinks import check_sink
from pirl_server.watch.ab_runner import AbRunner
from pirl_server.watch.deciding import Deciding
from pirl_server.watch.episode_outcomes import EpisodeOutcomes
from pirl_server.watch.live_view import LiveView
from pirl_server.watch.monitor import PromotionMonitor
from pirl_server.watch.state import write_unwatched

_LOG = logging.getLogger("pirl")
SWITCH_S = 0.001
"""how long a thread that computes in Python keeps one of a robot's waiting; 5 ms otherwise, several times a chunk"""
REST_RATE_HZ = 100.0
"""calls per second and token"""


def serve(config: ServeConfig) -> int:
    """Run until SIGINT or SIGTERM and return the exit status; see `shutdown`.

    Raises ValueError for a bad checkpoint, address or taken port, and for a root that another server uses.
    """
    malloc.tune()
    sys.setswitchinterval(SWITCH_S)
    configure_logs(config.log_format)
    limit = raise_limit()
    files = _tls(config)
    _check_address(config)
    _check_sinks(config)
    stop_port = _stop_port(config)
    with ExitStack() as stack:
        stack.enter_context(private_files())
        signals = stack.enter_context(Signals())
        stack.enter_context(root_lock(config.root))
        _check_rest_port(config)
        open_stop_door = stack.enter_context(stop_door(config.host, stop_port, files, config.rest_port))
        api, _ = stack.enter_context(build(config))
        open_stop_door(api)
        rest = make_listener(api, listen(config.host, config.rest_port, Seats("REST", shares(limit).rest)), files)
        ports = f"gRPC {config.grpc_port}, REST {config.rest_port}"
        ports += f", emergency stops {stop_port}" if stop_port else ""
        ports += "" if config.openpi_port is None else f", openpi clients {config.openpi_port}"
        print(f"pirl serves on {config.host}: {ports}", flush=True)
        return signals.serve(rest, api.state.services.stopping, config.drain_seconds)


@contextmanager
def build(config: ServeConfig) -> Iterator[tuple[FastAPI, RobotServer]]:
    """Make everything but the HTTP listener; gRPC serves while the context is open."""
    registry = Registry(config.root / MODELS)
    production = adopt(registry, config.checkpoint)
    engine, (store, recorder) = Engine(), _storage(config)

    def reachable() -> int:
        return sum(robot.reachable for robot in service.attendance.list())

    router = Router(recorder.is_open)
    deployment = _deployment(config, registry, engine, router, reachable)

    with ExitStack() as closing:
        closing.callback(engine.close)
        closing.callback(recorder.close)
        _start_deployment(deployment, production)
        threading.Thread(target=store.warm_up, name="summaries", daemon=True).start()
        if rules := _retention(config):
            closing.callback(Janitor(store, rules).close)
        gate = _gate(config, registry, recorder, store)
        service = _service(config, engine, recorder, router, gate)
        metrics, latencies = Metrics(engine, service.attendance, recorder), Latencies()
        spans = spans_from_environment(metadata.version("pirl"))
        activity = RobotActivity(recorder.robot_of)
        calls = CallTracker([CallLog(), metrics, latencies, activity, *([spans] if spans else [])])
        authorizer = CallAuthorizer(gate, registry.audit_log)
        server, port = _start(service, config, CallInterceptor([calls, authorizer], PUBLIC_RPCS))
        if config.openpi_port is not None:
            closing.callback(_start_openpi(config, service.dispatcher, gate).close)
        devices = tuple(check_device(device) for device in config.job_device) or DEVICES
        jobs = Supervisor(config.root / JOBS, _job_command(config), devices=devices, apart=True)
        Operations(config.root, jobs, recorder, gate, _tls(config)).register(metrics.registry)
        api = create_api(
            jobs=jobs,
            registry=registry,
            episodes=store,
            engine=engine,
            deployment=deployment,
            rule=_rule(config),
            watch=partial(_deciding, config, engine, recorder, store, deployment, registry),
            check_job=partial(job_main.check, exchange=config.exchange, root=config.root),
            grpc_port=port,
            attendance=service.attendance,
            gate=gate,
            metrics=metrics,
            latencies=latencies,
            limiter=None if gate.open else Limiter.per_second(REST_RATE_HZ),
            stopping=Stopping(server.drain, lambda: _busy(engine, service)),
            activity=activity,
            stop_port=_stop_port(config),
        )
        background = _background(api.state.services, service)
        try:
            yield api, server
        finally:
            # No new requests, then no writers: an episode is published whole or not at all.
            stopped = server.stop(0.5)
            background.close()
            jobs.close()
            stopped.wait()


def _storage(config: ServeConfig) -> tuple[EpisodeStore, Recorder]:
    free = config.episode_free_mib * 2**20
    store = EpisodeStore(config.root / EPISODES, free)
    return store, Recorder(store, replace(Limits.of_memory(config.episode_memory_mib * 2**20), free=free))


def _background(parts: Services, service: PolicyService) -> ExitStack:
    """Loops, and what else decides about versions by itself; closed in one call."""
    closing = ExitStack()
    closing.callback(_start_loops(parts, service).close)
    closing.callback(parts.deciding.close)
    return closing


def _deciding(
    config: ServeConfig, engine: Engine, recorder: Recorder, store: EpisodeStore, deployment: Deployment,
    registry: Registry, promoter: Promoter,
) -> Deciding:  # fmt: skip
    ab = AbRunner(registry, deployment, store, AbTrials(registry.root))
    if config.auto_rollback == "off":
        promoter.on_promoted = partial(write_unwatched, registry.root)
        return Deciding(None, ab)
    view, outcomes = LiveView(engine, recorder.alterations), EpisodeOutcomes(store)
    return Deciding(PromotionMonitor(registry, promoter, view, outcomes.since, outcomes.known, registry.root), ab)


def _job_command(config: ServeConfig) -> list[str]:
    exchange = [] if config.exchange is None else ["--exchange", str(config.exchange.resolve())]
    sinks = [word for sink in config.metrics_sink for word in ("--metrics-sink", sink)]
    return [sys.executable, "-m", "pirl_server.job_main", str(config.root.resolve()), *exchange, *sinks]


def _stop_port(config: ServeConfig) -> int:
    """The port of emergency stops; 0: there is none."""
    return config.rest_port + 2 if config.stop_port is None else config.stop_port


def _retention(config: ServeConfig) -> list[Retention]:
    """Which episodes are removed: those beyond the age, then the oldest beyond the size."""
    days, gib = config.keep_episodes_days, config.keep_episodes_gib
    by_age = [] if days is None else [Retention(older_than_days=days)]
    return by_age if gib is None else [*by_age, Retention(keep_bytes=int(gib * 2**30))]


def _start_loops(parts: Services, service: PolicyService) -> Loops:
    def world(job: str, spec: Loop) -> ServerWorld:
        promoter, deployment = parts.promoter, parts.deployment
        return ServerWorld(job, spec, parts.jobs, parts.episodes, parts.registry, promoter, deployment, service)

    return Loops(parts.jobs.hosted, parts.registry.audit_log, world)


def _deployment(
    config: ServeConfig, registry: Registry, engine: Engine, router: Router, reachable: Callable[[], int]
) -> Deployment:
    shadow = Shadow(engine, lambda report: _LOG.info("shadow %s", report))

    def load(version: str) -> FlowPolicy:
        policy = FlowPolicy.load(registry.get(version).path, device=config.device)
        _compile(policy, config.compile)
        return policy

    trial = TrialLimit(registry, config.canary_limit, reachable, _rule(config))
    return Deployment(engine, registry, router, shadow, load, trial)


def _rule(config: ServeConfig) -> GateRule:
    return GateRule(config.gate_margin, config.gate_robot_margin, config.gate_alpha)


def _compile(policy: FlowPolicy, how: Compile) -> None:
    """Before the policy serves. Raises ValueError where compiling was demanded and this machine can't."""
    if how == "off" or (how == "auto" and policy.device.type == "cpu"):
        return
    try:
        policy.compile()
    except RuntimeError as error:
        why = str(error).strip().splitlines()[0]
        if how == "on":
            raise ValueError(f"policies can't be compiled on this machine: {why}; start with --compile off") from error
        _LOG.warning("%s is served eagerly, since it can't be compiled here: %s", policy.name, why)


def _start_deployment(deployment: Deployment, production: str) -> None:
    try:
        deployment.start(production)
    except ValueError as error:
        fix = "where its files are damaged, start with its checkpoint, which replaces them: pirl serve CHECKPOINT"
        raise ValueError(f"the version in production can't be served: {error}; {fix}") from None


def _busy(engine: Engine, service: PolicyService) -> bool:
    """Whether a request waits or a robot has a session; others can't be notified, so they are not waited for."""
    return engine.stats().waiting > 0 or any(robot.sessions for robot in service.attendance.list())


def _service(
    config: ServeConfig, engine: Engine, recorder: Recorder, router: Router, gate: AccessControl
) -> PolicyService:
    return PolicyService(
        engine,
        recorder,
        config.explore,
        router=router,
        check_rate=gate.check_rate,
        default_instruction=config.default_instruction,
        codecs=_codecs(config, engine),
    )


def _codecs(config: ServeConfig, engine: Engine) -> CameraCodecs:
    try:
        codecs = CameraCodecs.parse(config.image_codec)
        if engine.current is not None:
            codecs.check(engine.current.contract)
    except ValueError as error:
        raise ValueError(f"--image-codec: {error}") from None
    return codecs


def _start(service: PolicyService, config: ServeConfig, interceptor: CallInterceptor) -> tuple[RobotServer, int]:
    files = _tls(config)
    credentials = files.for_grpc() if files else None
    try:
        host = f"[{config.host}]" if ":" in config.host else config.host  # of IPv6
        connections = shares(current_limit()).grpc
        return start_grpc(service, f"{host}:{config.grpc_port}", credentials, [interceptor], connections)
    except ValueError as error:
        raise ValueError(f"{error}; choose another one with --grpc-port") from None


def _start_openpi(config: ServeConfig, dispatcher: Dispatcher, gate: AccessControl) -> OpenpiServer:
    files, check = _tls(config), None if gate.open else gate.robot
    keys, tls = Keys.parse(config.openpi_key), files.context() if files else None
    assert config.openpi_port is not None
    try:
        return start_openpi(dispatcher, config.host, config.openpi_port, keys=keys, check=check, tls=tls)
    except ValueError as error:
        raise ValueError(f"--openpi-port, --openpi-key: {error}") from None


def _tls(config: ServeConfig) -> TlsFiles | None:
    """Return the certificate files, checked; None where nothing is to be encrypted."""
    if config.tls_cert is None and config.tls_key is None and config.tls_client_ca is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise ValueError("a certificate needs its key: give both --tls-cert and --tls-key")
    files = TlsFiles(config.tls_cert, config.tls_key, config.tls_client_ca)
    files.check()
    return files


def _tokens(config: ServeConfig) -> TokenFile | None:
    """Return the tokens below the root, readable now; None when none was ever created."""
    file = TokenFile(config.root / TOKENS)
    return file if file.list() or file.path.exists() else None


def _gate(config: ServeConfig, registry: Registry, recorder: Recorder, store: EpisodeStore) -> AccessControl:
    def robot_of(episode_id: str) -> str | None:
        if (robot_id := recorder.robot_of(episode_id)) is not None:
            return robot_id
        with suppress(KeyError):
            return store.summary(episode_id).robot_id
        return None

    limiter = Limiter.per_second(config.robot_rate_hz) if config.robot_rate_hz else None
    return AccessControl(_tokens(config), registry.audit_log, limiter, robot_of)


def adopt(registry: Registry, checkpoint: Path | None) -> str:
    """Return the version to serve: what is in production, unless the checkpoint given was never seen before.

    Raises ValueError when it is not known for certain what is in production, and when that version can't be read.
    """
    production = _production(registry, checkpoint)
    if checkpoint is not None:
        card, _, _ = load_checkpoint(checkpoint)  # whole: a torn file must not go into production
        version = checkpoint_version(checkpoint)
        known = registry.holds(version)
        if known and (found := checkpoint_version(registry.path(version))) != version:
            registry.put_away(version, f"the files of version {version} were changed: they are {found} now")
        registry.add(version, checkpoint, card.contract)
        if production is None or not known:
            registry.point(PRODUCTION, version, actor="serve", reason=f"started with {checkpoint}", event="started")
            production = version
    if production is None:
        raise ValueError("no version is in production yet: give a checkpoint, pirl serve CHECKPOINT")
    try:
        registry.get(production)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"version {production}, which is in production, can't be read ({error}): repair it, or start with its"
            " checkpoint, pirl serve CHECKPOINT"
        ) from None
    registry.versions()  # to know what is damaged
    for name, reason in registry.damaged.items():
        _LOG.error("version %s can't be read: %s", name, reason)
    return production


def _production(registry: Registry, checkpoint: Path | None) -> str | None:
    """Return what is in production. Aliases that nothing is left of are put aside only for a checkpoint."""
    try:
        registry.repair_aliases()
    except ValueError as error:
        if checkpoint is None:
            raise
        _LOG.error("%s: no record of the production version, so %s is now in production", error, checkpoint)
        registry.forget_aliases(str(error))
    return registry.aliases().get(PRODUCTION)


def _check_address(config: ServeConfig) -> None:
    """Reject an address beyond this machine that nothing protects."""
    tls, tokens = config.tls_cert is not None, _tokens(config) is not None
    check_local(config.host)
    check_bind(config.host, tls=tls, tokens=tokens, allow_insecure=config.allow_insecure)


def _check_sinks(config: ServeConfig) -> None:
    for name in config.metrics_sink:
        try:
            check_sink(name)
        except ValueError as error:
            raise ValueError(f"--metrics-sink: {error}") from None


def _check_rest_port(config: ServeConfig) -> None:
    family, *_, (address, *_) = socket.getaddrinfo(config.host or None, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, config.rest_port))
        except OSError:
            raise ValueError(f"REST port {config.rest_port} is in use: choose another one with --rest-port") from None

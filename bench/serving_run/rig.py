"""Which implementations stand side by side, and their processes."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from processes import Process, cores, start


@dataclass(frozen=True)
class Route:
    """One way to ask: who serves, who asks, at which of the server's ports."""

    server: str
    robots: str
    path: str
    port: str = "port"
    options: tuple[tuple[str, float], ...] = ()


BARE = "gRPC, a bare stream"
"""the transport alone: bytes of about the same length, no message, no service"""
ROUTES = {
    "ours, unary": Route("our_server", "our_robots", "unary"),
    "ours, session": Route("our_server", "our_robots", "session"),
    "ours, shared memory": Route("our_server", "our_robots", "shared"),
    "ours, openpi's client": Route("our_server", "our_robots", "openpi", "openpi_port"),
    "openpi": Route("openpi_server", "our_robots", "openpi"),
    BARE: Route("our_server", "our_robots", "bare", "bare_port"),
    "lerobot, floor 0": Route("lerobot_server", "lerobot_robots", "lerobot"),
    "lerobot, as shipped": Route("lerobot_server", "lerobot_robots", "lerobot", options=(("floor_ms", 1e3 / 30),)),
}


@dataclass
class Rig:
    """The processes: servers on one core, robots on another, whoever asks for health beside the robots."""

    processes: dict[str, Process]
    probe: Process
    _ports: dict[tuple[Any, ...], int] = field(default_factory=dict)
    _connected: set[str] = field(default_factory=set)

    def routes(self) -> list[str]:
        return [name for name, route in ROUTES.items() if route.server in self.processes]

    def port(self, name: str, payload: str, model_ms: float, which: str = "") -> int:
        """A server of this payload and model time, for this route alone: robots of another would be waited for."""
        route = ROUTES[name]
        key = (name, payload, model_ms)
        if (*key, "port") not in self._ports:
            options: dict[str, Any] = dict(route.options)
            ports = self.processes[route.server].ask("open", payload=payload, model_ms=model_ms, **options)
            self._ports |= {(*key, kind): port for kind, port in ports.items()}
        return self._ports[(*key, which or route.port)]

    def robots(self, name: str, payload: str, model_ms: float, robots: int = 1) -> tuple[Process, str]:
        """The process and the key of robots that are connected by this route."""
        route, key = ROUTES[name], f"{name}/{payload}/{model_ms}/{robots}"
        process = self.processes[route.robots]
        if key not in self._connected:
            port = self.port(name, payload, model_ms)
            process.ask("connect", key=key, path=route.path, port=port, payload=payload, robots=robots)
            self._connected.add(key)
        return process, key

    def cpu_s(self, name: str) -> tuple[float, float]:
        """CPU seconds so far of the route's server and of its robots."""
        return self.processes[ROUTES[name].server].ask("cpu"), self.processes[ROUTES[name].robots].ask("cpu")


def started(stack: ExitStack, peers: Path) -> Rig:
    """Start every process; lerobot's need their own Python and are left out, with the reason, when it is absent."""
    server_core, robot_core = cores()
    ours, theirs = {"our_server": server_core, "openpi_server": server_core, "our_robots": robot_core}, {}
    stamped = {"stamped_server": ("our_server.py", server_core), "stamped_robots": ("our_robots.py", robot_core)}
    python = peers / "lerobot/bin/python"
    if python.exists():
        theirs = {"lerobot_server": server_core, "lerobot_robots": robot_core}
    else:
        print(f"lerobot skipped: no {python}; docker/install_oracles.sh makes it", file=sys.stderr)
    processes = {name: start(stack, f"{name}.py", core) for name, core in ours.items()}
    processes |= {name: start(stack, script, core) for name, (script, core) in stamped.items()}
    processes |= {name: start(stack, f"{name}.py", core, str(python)) for name, core in theirs.items()}
    probe = start(stack, "our_robots.py", robot_core)
    for process in (*processes.values(), probe):
        process.wait()
    return Rig(processes, probe)


def percentiles(spans: list[float]) -> dict[str, float]:
    """p50, p95, p99 in ms; nothing of nothing."""
    if not spans:
        return {}
    return {f"p{q} ms": round(float(np.percentile(spans, q)), 3) for q in (50, 95, 99)}

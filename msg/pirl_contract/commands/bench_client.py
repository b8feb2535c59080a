"""`pirl bench-client ADDRESS`: load test of a policy server with robots of its own contract.

Each robot is a client with a thread of its own; images are noise, which compresses badly, as cameras' do not: JPEG and
PNG look slower here than they are. Nothing is logged, and no arm moves.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pirl_contract.client import PolicyClient, PolicyInfo
from pirl_contract.schema import Observation
from pirl_contract.wire.grpc_options import Tls
from pirl_contract.wire.image_encoder import ENCODINGS


@dataclass
class Tally:
    """What one robot has seen."""

    milliseconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    late: int = 0
    """turns that were skipped because the answer before took longer than a period"""


@dataclass(frozen=True)
class Load:
    """What is asked of the server."""

    robots: int
    rate_hz: float
    """of each robot; 0: the next request as soon as the last is answered"""
    seconds: float


def run(clients: Sequence[PolicyClient], load: Load) -> dict[str, float | dict[str, int]]:
    """Ask from all clients at once and return the figures. Raises ConnectionError and ValueError before the start."""
    tallies = [Tally() for _ in clients]
    infos = [client.info() for client in clients]
    began = time.monotonic()
    robots = [
        threading.Thread(target=_drive, args=(client, _observation(info, number), load, tally))
        for number, (client, info, tally) in enumerate(zip(clients, infos, tallies))
    ]
    for robot in robots:
        robot.start()
    for robot in robots:
        robot.join()
    return _figures(tallies, time.monotonic() - began)


def _drive(client: PolicyClient, observation: Observation, load: Load, tally: Tally) -> None:
    period_s = 1 / load.rate_hz if load.rate_hz else 0.0
    end = due = time.monotonic()
    end += load.seconds
    while (now := time.monotonic()) < end:
        if now < due:
            time.sleep(min(due, end) - now)
            continue
        try:
            client.infer(observation)
            tally.milliseconds.append(1000 * (time.monotonic() - now))
        except (ConnectionError, TimeoutError, ValueError) as error:
            tally.errors[_kind(error)] += 1
            time.sleep(min(client.retry_after_s, load.seconds))
        turns = max(1, int((min(time.monotonic(), end) - due) // period_s)) if period_s else 1
        tally.late += turns - 1
        due += turns * period_s


def _kind(error: Exception) -> str:
    """Few different words for many errors: the class, and the status code where the server rejected."""
    text = str(error)
    return text.split(":")[0] if text.startswith("policy server rejected") else type(error).__name__


def _observation(info: PolicyInfo, seed: int) -> Observation:
    rng = np.random.default_rng(seed)
    contract = info.contract
    images = {
        camera.name: rng.integers(0, 256, (camera.height, camera.width, 3), np.uint8) for camera in contract.cameras
    }
    return Observation(images, np.zeros(contract.state_dim, np.float32), next(iter(info.instructions), "benchmark"))


def _figures(tallies: Sequence[Tally], seconds: float) -> dict[str, float | dict[str, int]]:
    times = np.array([each for tally in tallies for each in tally.milliseconds])
    errors = sum((tally.errors for tally in tallies), Counter[str]())
    percentiles = {f"p{rank}_ms": round(float(np.percentile(times, rank)), 3) for rank in (50, 95, 99) if len(times)}
    return {
        "robots": len(tallies),
        "seconds": round(seconds, 2),
        "answers": len(times),
        "answers_per_s": round(len(times) / seconds, 2),
        **percentiles,
        "turns_missed": sum(tally.late for tally in tallies),
        "errors": dict(errors),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the command; 1 when nothing was answered. Raises ValueError for options that are out of range."""
    options = _parser().parse_args(arguments)
    if options.robots < 1 or options.duration <= 0 or options.rate < 0:
        raise ValueError("--robots must be at least 1, --duration above 0 and --rate not below 0")
    token = options.token_file.read_text().strip() if options.token_file else None
    tls = Tls(options.ca, options.cert, options.key) if options.tls or options.ca else None
    clients = [
        PolicyClient(
            options.address,
            f"bench-{number}",
            options.timeout,
            transport=options.transport,
            encoding=options.encoding,
            token=token,
            tls=tls,
        )
        for number in range(options.robots)
    ]
    try:
        figures = run(clients, Load(options.robots, options.rate, options.duration))
    except (ConnectionError, TimeoutError) as error:
        print(f"pirl bench-client: {error}", file=sys.stderr)
        return 1
    finally:
        for client in clients:
            client.close()
    print(json.dumps(figures) if options.json else "\n".join(f"{name:16}{figures[name]}" for name in figures))
    return 0 if figures["answers"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pirl bench-client", description="Load-test a policy server.")
    parser.add_argument("address", help="host:port of gRPC; [::1]:50051 for IPv6")
    parser.add_argument("--robots", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="of each robot; 0: unlimited")
    parser.add_argument("--duration", type=float, default=10.0, metavar="S")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="S", help="of each request")
    parser.add_argument("--transport", choices=("session", "unary"), default="session")
    parser.add_argument("--encoding", choices=ENCODINGS, default="auto")
    parser.add_argument("--tls", action="store_true", help="use TLS with the system's CAs unless --ca is given")
    parser.add_argument("--ca", type=Path, help="PEM file of the CA of the server's certificate")
    parser.add_argument("--cert", type=Path, help="PEM file of the client's certificate")
    parser.add_argument("--key", type=Path, help="PEM file of its private key")
    parser.add_argument("--token-file", type=Path, help="file with the bearer token")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of a table")
    return parser

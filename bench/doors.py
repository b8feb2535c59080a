"""How soon is an emergency stop answered, and does a robot fail, while others misbehave at the doors of `pirl serve`?

    python bench/doors.py [--quick] [--json]

The real server with 1,024 open files and the shipped policy; a robot at 10 Hz over a session with shared memory. Beside
them, one after another: none; 1,100 connections that send half a request and come again when they are closed, at each
port; four callers who post 100 MiB; four who post as many wrong fields as a body may hold; twenty who list 5,000
episodes without a pause; fifty who follow a job of 200,000 events and do not read. Stops go to their own port and to
the REST port, each over a new connection.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "doors_run"))

from stored import old_job, publish
from whole import HalfOpen, Robot, Whole, many_files, raw

ATTACKERS, CALLERS, DESCRIPTORS = 1100, 4, 1024
LISTERS, EPISODES, FOLLOWERS, EVENTS = 20, 5_000, 50, 200_000
GAP_S = 0.05


@contextmanager
def nobody(server: Whole) -> Iterator[None]:
    """Leave the server alone."""
    yield


@contextmanager
def half_open(server: Whole, door: str) -> Iterator[None]:
    """Hold half a request at one port, many times."""
    beginning = b"" if door == "grpc" else b"POST / HTTP/1.1\r\nHost: a\r\n"
    attack = HalfOpen(getattr(server, f"{door}_port"), ATTACKERS, beginning)
    try:
        while attack.opened < ATTACKERS:
            time.sleep(0.05)
        yield
    finally:
        attack.close()


@contextmanager
def posting(server: Whole, body: bytes) -> Iterator[None]:
    """Post a body as a job, again and again."""
    words = f"Host: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {server.trainer}\r\n"
    head = f"POST /v1/jobs HTTP/1.1\r\n{words}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    def post(number: int) -> None:
        with suppress(OSError, ValueError):  # reset in the middle of its body
            raw(server.rest_port, head, body)

    with repeating(CALLERS, post):
        yield


@contextmanager
def repeating(count: int, act: Callable[[int], object]) -> Iterator[None]:
    """Let so many callers do it again and again."""
    over = threading.Event()

    def repeat(number: int) -> None:
        while not over.is_set():
            act(number)

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextmanager
def listing(server: Whole) -> Iterator[None]:
    """List episodes, each caller with a token of its own, so that no rate limit slows them."""
    tokens = [server.tokens.create(f"lister-{number}", ["operator"]) for number in range(LISTERS)]

    def page(number: int) -> None:
        status, _ = server.get("/v1/episodes?limit=100", tokens[number])
        server.listed[status] += 1

    page(0)
    server.listed.clear()
    with repeating(LISTERS, page):
        yield


@contextmanager
def following(server: Whole) -> Iterator[None]:
    """Follow a job's events and read none."""
    words = f"Host: 127.0.0.1\r\nAuthorization: Bearer {server.trainer}\r\n"
    readers = [socket.create_connection(("127.0.0.1", server.rest_port), 20) for _ in range(FOLLOWERS)]
    for reader in readers:
        reader.sendall(f"GET /v1/jobs/{server.job}/events HTTP/1.1\r\n{words}\r\n".encode())
        time.sleep(0.02)  # below the token's rate
    try:
        yield
    finally:
        for reader in readers:
            reader.close()


def beside(server: Whole, robot: Robot, stops: int, chunks: int) -> dict[str, float]:
    """Press the stop and watch the robot, for so many chunks at least: milliseconds, failures."""
    robot.clear()
    times: dict[str, list[float]] = {"stop port": [], "REST port": []}
    failed = 0
    for _ in range(stops):
        for name, port in (("stop port", server.stop_port), ("REST port", server.rest_port)):
            try:
                status, seconds = server.stop("arm-1", port, timeout_s=20.0)
            except OSError:
                status, seconds = 0, 20.0
            failed += status != 202
            times[name].append(1000 * seconds)
        time.sleep(GAP_S)
    while robot.answered + len(robot.failures) < chunks:
        time.sleep(GAP_S)
    figures = {f"{name}, ms p50": float(np.median(each)) for name, each in times.items()}
    figures |= {f"{name}, ms most": max(each) for name, each in times.items()}
    figures |= {"stops not answered": failed, "stops that the robot got": robot.stops, "chunks": robot.answered}
    p50, p99 = (1000 * float(each) for each in np.percentile(robot.seconds, (50, 99)))
    figures |= {"chunks failed": len(robot.failures), "chunk, ms p50": p50, "chunk, ms p99": p99}
    return {name: round(value, 1) for name, value in figures.items()}


def trouble() -> dict[str, Callable[[Whole], Any]]:
    """Name what goes on beside."""
    wrong = json.dumps({"kind": "sft", "task": "T-1"} | {f"k{number}": 0 for number in range(5_000)}).encode()
    large = b"[" + b" " * (100 * 2**20 - 1)
    found: dict[str, Callable[[Whole], Any]] = {"none": nobody}
    for door in ("rest", "stop", "openpi", "grpc"):
        found[f"half open, {door}"] = lambda server, door=door: half_open(server, door)  # type: ignore[misc]
    found["100 MiB bodies"] = lambda server: posting(server, large)
    found[f"{len(wrong) // 1024} KiB of wrong fields"] = lambda server: posting(server, wrong)
    found[f"{LISTERS} lists of {EPISODES} episodes"] = listing
    found[f"{FOLLOWERS} followers that do not read"] = following
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="ten stops each")
    parser.add_argument("--only", default="", metavar="WORD,WORD", help="none, and what has one of these in its name")
    parser.add_argument("--json", action="store_true", help="one object, trouble -> figure -> number")
    options = parser.parse_args()
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, many_files():
        publish(Path(folder), EPISODES)
        server = Whole(Path(folder), DESCRIPTORS)
        server.job = old_job(Path(folder), EVENTS)
        try:
            for name, begin in trouble().items():
                if name != "none" and not any(word in name for word in options.only.split(",")):
                    continue
                before = server.log.stat().st_size
                robot = Robot(server, "arm-1")
                try:
                    with begin(server):
                        rows[name] = beside(server, robot, *((10, 0) if options.quick else (100, 200)))
                finally:
                    robot.close()
                if server.listed:
                    rows[name] |= {f"lists, status {status}": count for status, count in server.listed.items()}
                    server.listed.clear()
                rows[name]["log, KiB"] = round((server.log.stat().st_size - before) / 1024, 1)
            memory = round(server.memory("VmHWM") / 2**20)
        finally:
            server.close()
    if options.json:
        print(json.dumps(rows | {"all": {"most memory, MiB": memory}}))
        return
    for name, row in rows.items():
        print(f"{name}\n" + "\n".join(f"  {figure:28}{value:>9g}" for figure, value in row.items()))
    print(f"most memory, MiB {memory}")


if __name__ == "__main__":
    main()

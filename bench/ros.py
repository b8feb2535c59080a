"""The robot side over real processes: delivered commands, latency, CPU; and what it does when its server is killed.

    python bench/ros.py [--quick] [--json] [--apart] [--cut] [--kills 200] [--kind joint_trajectory]
    python bench/ros.py --base COMMIT [--quick] [--json] [--kind joint_trajectory]

Load: one 640x480 camera at 30 Hz, joint states at 100 Hz, joint commands at 50 Hz, against the real policy service on
the same host, whose policy costs nothing. Latency: from the stamp of the image in an observation, taken before it is
published, to when this process's middleware has the chunk, and the first command made of it, which waits for the next
control period (up to 20 ms).
With --base the robot side of another commit takes turns with the one here, and ratios are printed instead of faults.
Faults: the server is killed with SIGKILL in mid-motion; the recorded commands are checked by code of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).parents[1]
if importlib.util.find_spec("pirl_msgs") is None or "AMENT_PREFIX_PATH" not in os.environ:
    os.execvp("bash", ["bash", "-c", f'. {ROOT}/docker/ros_env.sh && exec python "$0" "$@"', *sys.argv])
sys.path.insert(0, str(Path(__file__).parent / "robot"))

import rclpy  # noqa: E402
from builds import compare, tree_of  # noqa: E402
from limits import violations  # noqa: E402
from rig import RATE_HZ, Rig  # noqa: E402

from pirl_ros.sensing.sensor_messages import image_to_rgb  # noqa: E402

KINDS = ("forward_position", "joint_trajectory")
"""of command"""
TURNS, QUICK_TURNS = (24, 8.0), (3, 3.0)
"""rounds of both builds, and s of each turn"""
ACTIONS = 25
"""per chunk: half a second"""
STILL = 1e-6
"""rad"""
MOVING = ("playing", "draining", "decelerating")
PERIOD_S = 1.0 / RATE_HZ


def conversion_ms() -> dict[str, float]:
    """Milliseconds to make an RGB array of a 640x480 message, median of 200."""
    figures = {}
    for encoding, channels in (("rgb8", 3), ("bgr8", 3)):
        data = np.zeros(480 * 640 * channels, np.uint8).tobytes()
        message = SimpleNamespace(
            encoding=encoding, height=480, width=640, step=640 * channels, data=data, is_bigendian=0
        )
        spans = []
        for _ in range(200):
            began = time.perf_counter()
            image_to_rgb(message)
            spans.append(time.perf_counter() - began)
        figures[f"conversion of 640x480 {encoding}, ms"] = round(1e3 * float(np.median(spans)), 3)
    return figures


def flow(rig: Rig, seconds: float) -> dict[str, float]:
    """Play for a while; what was delivered, how late, at which cost."""
    idle = rig.cpu_s()
    rig.spin(min(seconds, 10.0))
    idle_share = 100 * (sum(rig.cpu_s().values()) - sum(idle.values())) / min(seconds, 10.0)
    goal = rig.start_goal(seconds + 5)
    rig.until(lambda: len(rig.commands) > 50, "the first commands")
    rig.forget()
    before, began = rig.cpu_s(), time.monotonic()
    rig.spin(seconds)
    wall_s = time.monotonic() - began
    used = {name: 100 * (now - before[name]) / wall_s for name, now in rig.cpu_s().items()}
    goal.cancel_goal_async()
    commands, played = len(rig.commands), sum(bool(chunk_id) for _, chunk_id, _ in rig.outcomes)
    gaps = np.diff([when for when, _ in rig.commands])
    chunk_ms, command_ms = rig.latencies_ms()
    return {
        "seconds": seconds,
        "actions played per second": round(played / wall_s, 2),
        "commands received": commands,
        "commands received per outcome reported": round(commands / len(rig.outcomes), 4),
        "gaps above 1.5 periods within 100 commands": round(100 * float((gaps > 1.5 * PERIOD_S).mean()), 2),
        "camera to chunk p50 ms": round(float(np.percentile(chunk_ms, 50)), 1),
        "camera to chunk p99 ms": round(float(np.percentile(chunk_ms, 99)), 1),
        "camera to command p50 ms": round(float(np.percentile(command_ms, 50)), 1),
        "camera to command p99 ms": round(float(np.percentile(command_ms, 99)), 1),
        "idle CPU of one core, %": round(idle_share, 1),
        **{f"CPU of {name}, %": round(share, 1) for name, share in used.items()},
        "CPU of the robot side, %": round(sum(used.values()), 1),
    }


def kill_once(rig: Rig) -> tuple[float, float, dict[str, int]]:
    """Kill the server in mid-motion; return s from there and from the last action to rest, and the limits broken."""
    rig.start_server(ACTIONS)
    rig.commands.clear()
    wait_s = float(np.random.default_rng(len(rig.states)).uniform(0, 0.5))
    over = rig.start_goal(60).get_result_async()
    while len(moving(rig)) <= 40:
        rig.until(lambda over=over: len(moving(rig)) > 40 or over.done(), "motion")
        if over.done():  # it was sent before the connection was back
            over = rig.start_goal(60).get_result_async()
    rig.spin(wait_s)
    rig.until(lambda: rig.moves and rig.states[-1][1].mode == "playing", "motion")
    killed = rig.kill_server()
    rig.until(lambda: rig.states[-1][1].mode not in MOVING, "the arm's rest")
    rig.spin(0.1)
    broken = violations(np.array([joints for _, joints in rig.commands]), str(rig.profile))
    rest, played = moving(rig)[-1], max(when for when, chunk_id, _ in rig.outcomes if chunk_id)
    return max(0.0, rest - killed), max(0.0, rest - played), broken


def moving(rig: Rig) -> list[float]:
    """When the commands came that were not the same as the one before."""
    pairs = zip(rig.commands[1:], rig.commands)
    return [when for (when, now), (_, before) in pairs if np.abs(np.subtract(now, before)).max() > STILL]


def faults(rig: Rig, times: int) -> dict[str, float]:
    """Kill the server again and again; seconds to rest and broken limits over all."""
    rests, brakes, broken = [], [], dict.fromkeys(("not finite", "position", "velocity", "acceleration"), 0)
    for _ in range(times):
        rest_s, brake_s, found = kill_once(rig)
        rests.append(rest_s)
        brakes.append(brake_s)
        broken = {name: broken[name] + count for name, count in found.items()}
    return {
        "server killed": times,
        "kill to rest p50 s": round(float(np.percentile(rests, 50)), 3),
        "kill to rest max s": round(max(rests), 3),
        "last action to rest p50 s": round(float(np.percentile(brakes, 50)), 3),
        "last action to rest max s": round(max(brakes), 3),
        **{f"commands over the {name} limit": count for name, count in broken.items()},
    }


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10 s and 5 kills instead of 60 s and 200")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    parser.add_argument("--kills", type=int, default=200, help="how often the server is killed in mid-motion")
    parser.add_argument("--apart", action="store_true", help="three processes instead of one")
    parser.add_argument("--cut", action="store_true", help="images cut up, as Fast DDS does by itself")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0], help="of command")
    parser.add_argument("--base", metavar="COMMIT", help="the robot side of a commit takes turns with the one here")
    options = parser.parse_args()
    figures = against(options) if options.base else alone(options)
    rclpy.try_shutdown()
    print(json.dumps(figures) if options.json else "\n".join(f"{name:48}{value:>9}" for name, value in figures.items()))


def alone(options: argparse.Namespace) -> dict[str, float]:
    """Flow and faults of the robot side here."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), images=True, whole=not options.cut, kind=options.kind)
        try:
            rig.start_server(ACTIONS)
            rig.start_robot(composed=not options.apart)
            figures = conversion_ms() | flow(rig, 10.0 if options.quick else 60.0)
            rig.kill_server()
            figures |= faults(rig, 5 if options.quick else options.kills)
        finally:
            rig.close()
    return figures


def against(options: argparse.Namespace) -> dict[str, float]:
    """The robot side here and that of a commit, in turns."""
    with tempfile.TemporaryDirectory() as temporary, tree_of(options.base, Path(temporary)) as tree:
        rigs = [
            Rig(Path(temporary), images=True, whole=not options.cut, name=name, tree=where, kind=options.kind)
            for name, where in (("here", ROOT), ("base", tree))
        ]
        try:
            for rig in rigs:
                rig.start_server(ACTIONS)
                rig.start_robot(composed=not options.apart)
            return compare(*rigs, *(QUICK_TURNS if options.quick else TURNS))
        finally:
            for rig in rigs:
                rig.close()


if __name__ == "__main__":
    main()

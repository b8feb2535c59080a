"""Is a broken version taken back in time, and is an equal one left alone?

    python bench/rollback.py [--quick] [--json] [--write docs/results/rollback.md]

The server is built as `pirl serve` builds it; toy robots follow its chunks over gRPC, alter what is too fast, and label
their episodes, of which some fail whatever the policy does. Promotions go over REST.

1. Each of 22 broken versions is promoted once the version before is known from 50 episodes or more, while two robots
   move at their real rate. It must be taken back within 10 s or 3 episodes, whichever is later.
2. Two versions of the same quality are promoted in turn, a hundred times; four robots run their episodes as fast as
   they can. None may be taken back.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "rollback_run"))

from toy_policy import FAULTS
from toy_robot import ToyRobot
from toy_site import ToySite

LIMIT_S, LIMIT_EPISODES, GIVE_UP_S = 10.0, 3, 60.0
QUICK = ("nan-in-one-of-ten", "frozen-at-zero", "one-joint-opposite", "ten-times-slower", "reaches-beside-the-goal")
Row = dict[str, Any]


def until_known(site: ToySite, version: str, episodes: int) -> None:
    """Let robots work."""
    began = time.monotonic()
    while site.episodes(version) < episodes:
        time.sleep(0.05)
        assert time.monotonic() - began < 300.0, f"{site.episodes(version)} of {episodes} episodes of {version}"


def broken(folder: Path, names: tuple[str, ...], known: int) -> list[Row]:
    """Promote each, and see how long it stays."""
    rows = []
    with ToySite(folder, robots=2, pace=0.0) as site:
        until_known(site, "good.0", known)
        for robot in site.robots:
            robot.pace = 1.0
        for name in names:
            version = f"{name}.1"
            site.add(version)
            site.promote(version)
            began = time.monotonic()
            while site.watch()["phase"] == "watching" and time.monotonic() - began < GIVE_UP_S:
                time.sleep(0.02)
            took_s, episodes, found = time.monotonic() - began, site.episodes(version), site.watch()
            taken = found["phase"] == "rolled back"
            rows.append(
                {
                    "version": name, "taken back": taken, "after, s": round(took_s, 1), "episodes": episodes,
                    "chunks": site.answered(version), "why": found["reason"],
                    "in time": taken and (took_s <= LIMIT_S or episodes <= LIMIT_EPISODES),
                }
            )  # fmt: skip
            if not taken:
                site.web.post("/v1/models/rollback", json={}).raise_for_status()
            until_good(site.robots)
        evidence = site.audited("taken back")
    assert len(evidence) == sum(row["taken back"] for row in rows), "each with its evidence in the audit log"
    return rows


def until_good(robots: list[ToyRobot]) -> None:
    """Let the version before answer a while."""
    before = sum(robot.seen["good.0"] for robot in robots)
    while sum(robot.seen["good.0"] for robot in robots) < before + 20:
        time.sleep(0.05)


def equal(folder: Path, swaps: int, episodes: int) -> Row:
    """Promote two good versions in turn; how many were taken back."""
    with ToySite(folder, robots=4, pace=0.0, slips=0.1) as site:
        site.add("good.1")
        taken, watched = [], 0
        until_known(site, "good.0", 20)
        for number in range(1, swaps + 1):
            version = f"good.{number % 2}"
            goal = site.episodes(version) + episodes
            site.promote(version)
            until = time.monotonic() + 300.0
            while site.episodes(version) < goal and site.watch()["phase"] == "watching":
                time.sleep(0.02)
                assert time.monotonic() < until
            time.sleep(0.3)  # one more look
            found = site.watch()
            watched += found["episodes"]
            if found["phase"] == "rolled back":
                taken.append(found["reason"])
                site.promote(version)
        return {"swaps": swaps, "episodes watched": watched, "taken back": len(taken), "why": "; ".join(taken)}


def table(rows: list[Row]) -> str:
    """Markdown."""
    head = list(rows[0])
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    cells = (
        [({True: "yes", False: "no"}[row[name]] if isinstance(row[name], bool) else row[name]) for name in head]
        for row in rows
    )
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in cells)])


PAGE = """# Automatic rollback, measured

Made by `python bench/rollback.py --write docs/results/rollback.md` on a server built as `pirl serve` builds it, with
toy robots over gRPC and promotions over REST. Two CPU cores, shared with other work.

## {count} broken versions

{good} of {count} were taken back in time: within 10 s or 3 episodes. Two robots at their real rate, 20 Hz and an
episode of 2.5 s; the version before fails in one of fifty episodes.

{broken}

## Equal versions

Two versions of the same quality, promoted in turn; four robots, {episodes} episodes or more after each promotion, of
which one in ten fails.

{equal}
"""


def main() -> None:
    """Measure and print."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="five broken versions, ten swaps")
    parser.add_argument("--json", action="store_true", help="one object")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what is broken raises
    names, swaps, episodes = (QUICK, 10, 6) if options.quick else (tuple(FAULTS), 100, 8)
    with tempfile.TemporaryDirectory() as folder:
        rows = broken(Path(folder) / "broken", names, 60 if options.quick else 100)
        same = equal(Path(folder) / "equal", swaps, episodes)
    good = sum(row["in time"] for row in rows)
    if options.write:
        text = PAGE.format(
            count=len(rows), good=good, broken=table(rows), equal=table([same]), episodes=episodes
        )  # fmt: skip
        options.write.write_text(text)
    print(json.dumps({"broken": rows, "equal": same}) if options.json else f"{table(rows)}\n\n{table([same])}")
    sys.exit(0 if good == len(rows) and not same["taken back"] else 1)


if __name__ == "__main__":
    main()

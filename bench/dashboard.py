"""How heavy is the dashboard, and how soon is it seen? In a real browser, against a server with robots and episodes.

    python bench/dashboard.py [--loads 5] [--json]

Each load begins with an empty cache and a token. weight: bytes of all files of the page, as sent. first paint: since
the navigation began, by the browser's own clock. whole: until the first robot is shown.
Exit status 1: a target is missed (weight below 250 kB, median of the first paint below 1 s).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "server"), str(TESTS.parent)]

from browser import Browser  # noqa: E402
from dashboard_world import enter  # noqa: E402
from furnished_server import furnished  # noqa: E402

from pirl_server.api.dashboard import web_files  # noqa: E402
from tests.server.conftest import CONTRACT, NamedPolicy  # noqa: E402

MAX_BYTES, MAX_PAINT_MS = 250_000, 1000.0


def main() -> int:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", type=int, default=5, help="of the page")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paints, wholes = measure(Path(folder), wanted.loads)
    weight = sum(len(each.data) for each in web_files().values())
    found = {
        "files": len(web_files()), "weight_bytes": weight, "loads": wanted.loads,
        "first_paint_ms": round(statistics.median(paints)), "first_paint_worst_ms": round(max(paints)),
        "whole_ms": round(statistics.median(wholes)),
    }  # fmt: skip
    print(json.dumps(found) if wanted.json else "\n".join(f"{name:22} {value}" for name, value in found.items()))
    return int(weight >= MAX_BYTES or found["first_paint_ms"] >= MAX_PAINT_MS)


def measure(folder: Path, loads: int) -> tuple[list[float], list[float]]:
    """Milliseconds to the first paint, and to the first robot, of each load."""
    paints, wholes = list[float](), list[float]()
    with furnished(folder / "server", NamedPolicy, CONTRACT) as server:
        browser = Browser(folder / "browser", 1280, 860)
        try:
            enter(browser, server, "robots")
            browser.call("Network.setCacheDisabled", cacheDisabled=True)
            for _ in range(loads):
                browser.open("about:blank")
                browser.open(f"{server.url}/dashboard")
                while not browser.sees(".robot"):
                    time.sleep(0.005)
                wholes.append(float(browser.value("performance.now()")))
                paints.append(
                    float(browser.value("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
                )
        finally:
            browser.close()
    return paints, wholes


if __name__ == "__main__":
    sys.exit(main())

"""How soon does a store of many episodes answer, with the index and with the code before it, in one interleaved run?

    python bench/episode_index.py [--quick] [--json]

1. A process that opens a store of 10,000 episodes of 43 files each, as short ones were stored, and lists the newest
   twenty: with this tree, and with the commit before the index, taken from git; one after the other, five times each.
2. The same with 100,000 episodes, of one file each as they are stored now, this tree only; and the build of an index
   that is missing.
3. There, a page of twenty by each filter; and an episode that another process publishes: from the end of its writing to
   the page that shows it.

The files are in the page cache, and the store has been at rest for a minute: the rule by which younger manifests are
read again is switched off.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent / "doors_run"))

from stored import publish

from pirl_server.episodes import manifest
from pirl_server.episodes.summary import EARLIER_GROUP

BEFORE, FILES = "9f9f3e9", 43
ROOT = Path(__file__).parents[1]
OPEN = """
import os, resource, sys, time
from pathlib import Path
from pirl_server.episodes.store import EpisodeStore
if hasattr(EpisodeStore, "select"):
    from pirl_server.config.episodes import EpisodeSelection
    from pirl_server.episodes import index
    index.YOUNG_NS = 0
    first = lambda store: store.page(EpisodeSelection(), 20).entries
else:
    first = lambda store: store.page(None, 20)[0]
first(EpisodeStore(Path(sys.argv[2])))
began = time.perf_counter()
found = first(EpisodeStore(Path(sys.argv[1])))
seconds = time.perf_counter() - began
assert len(found) == 20
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
PAGES = """
import json, sys, time
from pathlib import Path
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes import index
from pirl_server.episodes.store import EpisodeStore
index.YOUNG_NS = 0
store, times = EpisodeStore(Path(sys.argv[1])), {}
filters = json.loads(sys.argv[2])
middle = store.page(EpisodeSelection(), 20).entries[-1].cursor
for name, values in filters.items():
    chosen = EpisodeSelection(**{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()})
    times[name] = []
    for number in range(int(sys.argv[3])):
        began = time.perf_counter()
        store.page(chosen, 20, middle if number % 2 else None)
        times[name].append(1000 * (time.perf_counter() - began))
print(json.dumps(times))
"""
ARRIVE = """
import json, subprocess, sys, time
from pathlib import Path
from pirl_server.config.episodes import EpisodeSelection
from pirl_server.episodes import index, manifest
from pirl_server.episodes.store import EpisodeStore
index.YOUNG_NS = 0
store, newest, times, reads = EpisodeStore(Path(sys.argv[1])), EpisodeSelection(), [], []
store.page(newest, 1)
read, manifest.read = manifest.read, lambda home: [reads.append(home), read(home)][1]
command, pipe = [sys.executable, "-c", sys.argv[2], sys.argv[1]], subprocess.PIPE
writer = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
for _ in range(int(sys.argv[3])):
    print("next", file=writer.stdin, flush=True)
    id_ = writer.stdout.readline().strip()
    began = time.perf_counter()
    while store.page(newest, 1).entries[0].summary.id != id_:
        pass
    times.append(1000 * (time.perf_counter() - began))
writer.stdin.close()
writer.wait()
print(json.dumps([times, len(reads)]))
"""
WRITE = """
import dataclasses, sys, uuid
from pathlib import Path
from pirl_server.atomic_files import utc_now
from pirl_server.episodes.store import EpisodeStore
sys.path.insert(0, "tests")
from test_docs import episode
store, made = EpisodeStore(Path(sys.argv[1])), episode()
for _ in sys.stdin:
    info = dataclasses.replace(made.info, id=uuid.uuid4().hex, robot_id="arm-1", created=utc_now())
    print(store.write(dataclasses.replace(made, info=info)).id, flush=True)
"""
FILTERS = {
    "none": {},
    "robot": {"robots": ["arm-3"]},
    "outcome": {"label": "failure"},
    "robot and outcome": {"robots": ["arm-3"], "label": "success"},
    "instruction": {"instructions": ["push"]},
    "version": {"versions": ["3f9c1d20a7b4"]},
    "time range": {"since": "2026-01-01", "until": "2026-06-01"},
    "source": {"source": "policy"},
    "text that none has": {"text": "no such words"},
    "robot that is not there": {"robots": ["arm-99"]},
}


def run(code: str, *arguments: str, tree: Path = ROOT) -> str:
    path = os.pathsep.join([str(tree / "server"), str(tree / "msg"), str(tree / "sim")])
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout


def tree_before(folder: Path) -> Path:
    """The code before the index, as git has it."""
    packed = subprocess.run(
        ["git", "archive", BEFORE, "server", "msg", "sim"], cwd=ROOT, check=True, capture_output=True
    )
    folder.mkdir()
    subprocess.run(["tar", "-x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def publish_earlier(root: Path, count: int) -> None:
    """Write episodes as the code before did: real manifests over 43 empty files each."""
    for number in range(count):
        id_, robot = uuid.uuid4().hex, f"arm-{number % 8}"
        home = root / "episodes" / "episodes" / robot / id_
        (home / EARLIER_GROUP).mkdir(parents=True)
        for name in range(FILES):
            (home / EARLIER_GROUP / f"{name:02}").touch()
        summary = {
            "id": id_, "robot_id": robot, "created": f"2026-01-01T{number:06}", "instruction": "push",
            "success": number % 2 == 0, "label_source": "sim", "end_reason": "time_limit", "sampler": "ode",
            "contract_hash": "0" * 16, "policy_versions": ["3f9c1d20a7b4"], "calls": 3, "steps": 9,
            "path": f"episodes/{robot}/{id_}/{EARLIER_GROUP}", "dry_run": False,
        }  # fmt: skip
        manifest.write(home, summary)


def starts(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """Figure 1."""
    root, empty = folder / "many", folder / "empty"
    publish_earlier(root, count)
    publish_earlier(empty, 20)
    before, times = tree_before(folder / "before"), {"before": list[float](), "now": list[float]()}
    places = str(root / "episodes"), str(empty / "episodes")
    for number in range(repeats + 1):
        for name, tree in (("before", before), ("now", ROOT)):
            seconds = float(run(OPEN, *places, tree=tree).split()[0])
            if number:  # the first ones build the index and warm the page cache
                times[name].append(seconds)
    shutil.rmtree(root)
    old, new = median(times["before"]), median(times["now"])
    return {
        f"start with {count} episodes before, s": old,
        f"start with {count} episodes now, s": new,
        f"start with {count} episodes, times faster": old / new,
        f"start with {count} episodes now, s most": max(times["now"]),
    }


def large(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """Figures 2 and 3."""
    root = folder / "large"
    publish(root, count)
    publish(folder / "few", 20)
    place, few = str(root / "episodes"), str(folder / "few" / "episodes")
    build = float(run(OPEN, place, few).split()[0])
    opened = [[float(word) for word in run(OPEN, place, few).split()] for _ in range(repeats)]
    figures = {
        f"build of the index of {count} episodes, s": build,
        f"start with {count} episodes, s": median(row[0] for row in opened),
        f"start with {count} episodes, MiB of the process": max(row[1] for row in opened),
        f"index of {count} episodes, MiB": (root / "episodes" / "index.sqlite").stat().st_size / 2**20,
    }
    pages = json.loads(run(PAGES, place, json.dumps(FILTERS), str(20 * repeats)))
    for name, times in pages.items():
        figures[f"page by {name}, ms p50"] = median(times)
        figures[f"page by {name}, ms most"] = max(times)
    times, reads = json.loads(run(ARRIVE, place, WRITE, str(4 * repeats)))
    figures |= {
        "episode of another process on the page, ms p50": median(times),
        "episode of another process on the page, ms most": max(times),
        "manifests read for these": reads,
    }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 and 5,000 episodes, twice each")
    parser.add_argument("--json", action="store_true", help="one object, figure -> number")
    options = parser.parse_args()
    small, many, repeats = (300, 5_000, 2) if options.quick else (10_000, 100_000, 5)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        figures = starts(Path(folder), small, repeats) | large(Path(folder), many, repeats)
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    if options.json:
        print(json.dumps(figures))
        return
    print("\n".join(f"{name:56}{value:>12.4g}" for name, value in figures.items()))


if __name__ == "__main__":
    main()

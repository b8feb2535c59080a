"""What the documentation names exists: commands, targets, paths, modules, routes, bodies, launch arguments.

Each check takes a text and returns what is wrong in it; every one is also given a text in which something is.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from patience import completed

from pirl_contract import Camera, Contract, Field
from pirl_server.api.ab_schemas import AbRequest
from pirl_server.api.application import PARTS
from pirl_server.api.proposals import DecisionRequest
from pirl_server.api.schemas import PromoteRequest, RollbackRequest
from pirl_server.config.jobs import parse_spec
from pirl_server.episodes.schema import Calls, Episode, EpisodeInfo, Steps
from pirl_server.episodes.zarr_layout import write_group

ROOT = Path(__file__).parents[1]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = [ROOT / "msg" / "pirl_contract", ROOT / "pirl_ros" / "pirl_ros"]
PACKAGES += [ROOT / "server" / "pirl_server", ROOT / "sim" / "pirl_sim"]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SUFFIXES = ("py", "md", "yaml", "toml", "sh", "proto")
READERS_OWN = {"launch/params/my_arm.yaml"}
"""paths that a how-to tells the reader to make"""
SERVED = {"v1", "docs", "openapi", "problems", "dashboard", "readyz", "healthz", "metrics", "diagnostics", "clock"}
"""first part of what may stand in the docs with a leading slash: routes, topics that are no node's own"""


def code(text: str) -> list[str]:
    """Return code blocks and inline code."""
    prose = FENCE.sub("", text)
    return [body for _, body in FENCE.findall(text)] + re.findall(r"`([^`\n]+)`", prose)


def found(pattern: str, text: str) -> Iterator[re.Match[str]]:
    for piece in code(text):
        yield from re.finditer(pattern, piece)


def unknown_targets(text: str) -> list[str]:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return [hit[0] for hit in found(r"\bmake ([a-z-]+)", text) if hit[1] not in known]


@functools.cache
def help_of(command: str, *part: str) -> str | None:
    (entry,) = [*entry_points(group="pirl.commands", name=command)] or [None]
    if entry is None:
        return None
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(out := StringIO()), pytest.raises(SystemExit):
        entry.load()([*part, "--help"])
    return out.getvalue()


def unknown_commands(text: str) -> list[str]:
    """Commands that are no entry point, and options that the command's own help does not list."""
    wrong = []
    for hit in found(r"(?:^|(?<=[\n ;]))pirl ([a-z-]+)\b([^\n#\"]*)", text):
        help_text = help_of(hit[1])
        part = hit[2].split()[:1]
        if help_text is not None and part and re.search(rf"[{{,]{re.escape(part[0])}[,}}]", help_text):
            help_text = help_of(hit[1], part[0])
        options = re.findall(r"--[a-z-]+", hit[2])
        if help_text is None or any(option not in help_text for option in options):
            wrong.append(hit[0].strip())
    return wrong


def missing_paths(text: str) -> list[str]:
    """Paths from a top-level entry, and files by a name that no file of the tree has."""
    names = {path.name for path in _sources()}
    wrong = []
    for token in (
        token for piece in code(text) for token in re.findall(r"(?<![\w$:/.=*>-])[\w./-]+(?![\w*<:])", piece)
    ):
        path = token.removeprefix("./").rstrip("/.,")
        first, suffix = path.split("/")[0], path.rsplit(".")[-1]
        anchored = "/" in path and (ROOT / first).is_dir() and first not in ("runs", ".venv", ".ros", "")
        if anchored and path not in READERS_OWN and not (ROOT / path).exists():
            # rooms of the server may be named from there: model/config.py
            wrong += [] if (ROOT / "server" / "pirl_server" / path).exists() else [token]
        elif not anchored and suffix in SUFFIXES and path.count(".") == 1 and Path(path).name not in names:
            wrong.append(token)
    return wrong


def wrong_tree_lines(text: str) -> list[str]:
    """Lines of an annotated tree whose path does not exist or whose caption is missing."""
    wrong, parents = [], [""]
    for line in re.findall(r"^[│ ]*[├└]── .*$", text, re.MULTILINE):
        depth = line.index("── ") // 4
        entry, _, caption = line.split("── ", 1)[1].partition("  ")
        parents = [*parents[: depth + 1], entry.rstrip("/")]
        # "msg/, srv/": several neighbours on one line
        paths = ["/".join([*parents[1 : depth + 1], name.rstrip("/")]) for name in entry.split(", ")]
        if not caption.strip() or not all((ROOT / path).exists() for path in paths):
            wrong.append(line)
    return wrong


def broken_links(text: str) -> list[str]:
    """Relative links to nothing, and anchors that no heading makes."""
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text)):
        path, _, anchor = target.partition("#")
        pages = [page for start in {doc.parent for doc in DOCS} if (page := (start / path).resolve()).exists()]
        headings = [re.sub(r"[^\w -]", "", line).strip().lower() for page in pages if page.suffix == ".md"
                    for line in re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)]  # fmt: skip
        if not pages or (anchor and anchor not in [heading.replace(" ", "-") for heading in headings]):
            wrong.append(target)
    return wrong


def unknown_modules(text: str) -> list[str]:
    """`room.module`, `module.name`: where the first part is a module or room of ours, the rest must be in it."""
    paths = {".".join(path.relative_to(package.parent).with_suffix("").parts): path
             for package in PACKAGES for path in package.rglob("*.py")}  # fmt: skip
    rooms = {part for dotted in paths for part in dotted.split(".")}
    plain = "".join(f"`{piece}`\n" for piece in code(FENCE.sub(lambda m: "" if m[1] else m[0], text)))
    wrong = []
    for name in re.findall(r"(?<![\w./-])[a-z_0-9]+(?:\.[A-Za-z_0-9]+)+(?![\w(]*/)", plain):
        first, last = name.split(".")[0], name.rsplit(".")[-1]
        if first not in rooms or last in (*SUFFIXES, "js", "json", "jsonl", "txt", "zarr", "zip", "safetensors"):
            continue
        module = [path for dotted, path in paths.items() if f".{dotted}".endswith(f".{name.rsplit('.', 1)[0]}")]
        package = any(f".{dotted}".endswith(f".{name}") for dotted in paths)
        if not package and not any(last in _definitions(path) for path in module):
            wrong.append(name)
    return wrong


def unknown_routes(text: str) -> list[str]:
    """`GET /path` and curl lines that no handler answers, and curl bodies that the handler would refuse."""
    known = {(method, route.path_format) for part in PARTS for route in part.router.routes for method in route.methods}
    named = found(r"(GET|POST|PUT|DELETE) (/[\w/{}-]+(?:\.\w+)?)", text)
    wrong = [hit[0] for hit in named if (hit[1], hit[2].replace("ROBOT_ID", "{robot_id}")) not in known]
    for hit in found(r"(?:\$api|http://127\.0\.0\.1:8000)(/[\w/-]+)\S*(\s+--json\s+\\?\s*(?:'([^']+)')?)?", text):
        path = hit[1].replace("JOB_ID", "{job_id}").replace("/VERSION/", "/{version}/")
        if ("POST" if hit[2] else "GET", path) not in known or (hit[3] and not _accepted(path, hit[3])):
            wrong.append(hit[0])
    return wrong


def _accepted(path: str, body: str) -> bool:
    check = {"/v1/models/promote": PromoteRequest.model_validate, "/v1/models/rollback": RollbackRequest.model_validate}
    check["/v1/proposals"], check["/v1/ab-trials"] = DecisionRequest.model_validate, AbRequest.model_validate
    try:
        check.get(path, parse_spec)(json.loads(body))
    except ValueError:
        return False
    return True


def unknown_launch_arguments(text: str) -> list[str]:
    wrong = []
    for hit in found(r"ros2 launch pirl_ros (\S+)([^\n]*)", text):
        files = [ROOT / "launch" / hit[1], ROOT / "launch" / "policy.launch.py"]
        declared = "".join(file.read_text() for file in files if file.exists())
        arguments = re.findall(r"(\w+):=", hit[2])
        known = set(re.findall(r'DeclareLaunchArgument\(\s*"(\w+)"', declared))
        if not files[0].exists() or not known.issuperset(arguments):
            wrong.append(hit[0])
    return wrong


def foreign_places(text: str) -> list[str]:
    """Paths of one machine, and addresses beyond it."""
    paths = re.findall(r"(?<![\w.$}:/>)\-])/([a-z][\w]*)/?", text)
    hosts = re.findall(r"https?://([^\s/:)`'\"]+)", text)
    nodes = "".join(path.read_text() for path in (ROOT / "pirl_ros" / "pirl_ros").rglob("*.py"))
    profiles = "".join(path.read_text() for path in (ROOT / "launch" / "params").glob("*.yaml"))
    named = {path for path in paths if f'"{path}"' in nodes or f'"~/{path}"' in nodes or f"topic: {path}/" in profiles}
    return [path for path in paths if path not in SERVED | named] + [host for host in hosts if host != "127.0.0.1"]


def _sources() -> list[Path]:
    tops = ("msg", "pirl_ros", "launch", "server", "sim", "tests", "bench", "docker", "docs")
    return [path for top in tops for path in (ROOT / top).rglob("*")] + list(ROOT.glob("*"))


@functools.cache
def _definitions(path: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)}


CHECKS: list[tuple[Callable[[str], list[str]], str]] = [
    (unknown_targets, "`make coffee`"),
    (unknown_commands, "`pirl brew`"),
    (unknown_commands, "`pirl serve --beans`"),
    (missing_paths, "`server/pirl_server/coffee.py`"),
    (missing_paths, "`coffee.py`"),
    (wrong_tree_lines, "├── msg/              the contract\n│   └── coffee.py    brews\n"),
    (wrong_tree_lines, "├── msg/\n"),
    (broken_links, "[coffee](coffee.md)"),
    (broken_links, "[tree](architecture.md#coffee)"),
    (unknown_modules, "`serving.coffee`"),
    (unknown_modules, "`flow.brew`"),
    (unknown_routes, "`POST /v1/coffee`"),
    (unknown_routes, "```bash\ncurl $api/v1/coffee\n```\n"),
    (unknown_routes, '```bash\ncurl $api/v1/jobs --json \'{"kind": "brew"}\'\n```\n'),
    (unknown_launch_arguments, "`ros2 launch pirl_ros policy.launch.py beans:=3`"),
    (foreign_places, "see /kitchen/coffee"),
    (foreign_places, "from https://coffee.example/pot"),
]


def pairs() -> Iterator[object]:
    """Every check with every page; only two pages name modules with dots."""
    for check in dict.fromkeys(check for check, _ in CHECKS):
        for page in DOCS:
            if check is not unknown_modules or page.name in ("architecture.md", "algorithm.md"):
                yield pytest.param(check, page, id=f"{check.__name__}-{page.relative_to(ROOT).as_posix()}")


@pytest.mark.parametrize(("check", "page"), pairs())
def test_what_the_docs_name_exists(check: Callable[[str], list[str]], page: Path) -> None:
    assert check(page.read_text()) == []


@pytest.mark.parametrize(("check", "text"), CHECKS)
def test_a_wrong_name_is_noticed(check: Callable[[str], list[str]], text: str) -> None:
    assert len(check(text)) == 1


def test_the_checks_have_something_to_look_at() -> None:
    """A page whose form has changed would otherwise pass unseen."""
    readme, architecture = (ROOT / "README.md").read_text(), (ROOT / "docs" / "architecture.md").read_text()
    assert len(re.findall("── ", readme)) > 30
    assert len([*found(r"\$api/v1", readme)]) >= 6
    assert len([*found(r"serving\.\w+|jobs\.\w+|pirl_ros\.\w+", architecture)]) >= 10
    assert {entry.name for entry in entry_points(group="pirl.commands")} == {
        hit[1] for hit in found(r"^pirl ([\w-]+)", readme)
    }


def episode() -> Episode:
    """Two calls, three steps, one of them changed by the safety layer."""
    contract = Contract("arm", (Camera("base", 4, 4),), (Field("q", "rad"),), (Field("dq", "rad", -1, 1),), 20.0)
    C, T, K, H = 2, 3, 2, 4
    call, step, chunk = np.zeros(C, np.float32), np.zeros(T, np.float32), np.zeros((C, H, 1), np.float32)
    calls = Calls(
        images={"base": np.zeros((C, 4, 4, 3), np.uint8)}, state=np.zeros((C, 1), np.float32),
        capture_time_ns=np.zeros(C, np.int64), chunk=chunk, chain=np.zeros((C, K + 1, H, 1), np.float32),
        sde_index=np.zeros(C, np.int32), log_prob=chunk, std=call, noise_level=call, value=call,
        seed=np.zeros(C, np.uint64), policy_version=np.zeros(C, np.int32), step=np.array([0, 2], np.int32),
        latency_ms=call,
    )  # fmt: skip
    steps = Steps(
        executed=np.zeros((T, 1), np.float32), state=np.zeros((T, 1), np.float32), reward=step,
        alterations=np.array([0, 1, 0], np.uint32), source=np.zeros(T, np.uint8), call=np.array([0, 0, 1], np.int32),
        index=np.zeros(T, np.int32), time_ns=np.zeros(T, np.int64), terminated=step > 0, truncated=step > 0,
    )  # fmt: skip
    info = EpisodeInfo("0" * 32, "arm", contract, "push", True, "sim", "success", "p", ("v1",), 2, {}, "2025-01-01")
    return Episode(info, calls, steps)


def test_the_documented_way_to_read_an_episode_works(tmp_path: Path) -> None:
    write_group(tmp_path / "episode.zarr.zip", episode())
    blocks = FENCE.findall((ROOT / "docs" / "architecture.md").read_text())
    (snippet,) = [body for language, body in blocks if language == "python"]
    command = [sys.executable, "-W", "ignore", "-c", snippet]
    done = completed(command, cwd=tmp_path, limit_s=60)
    assert done.stdout == "push True ['v1']\non an arm\n(2, 3, 4, 1) 2 of 3 steps as sampled\n", done.stderr
